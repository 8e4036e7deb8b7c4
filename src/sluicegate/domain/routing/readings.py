"""The ways in which routers may read a path: what one serves under another spelling must not pass uncounted.

Starlette matches the decoded path as it is. Others merge slashes, drop the last one, keep `%2F` apart from `/`, decode once
more, drop bytes that are not UTF-8, or put a root path before it. Where the router is not known, a request belongs to the
endpoints of all readings: to count too much beats to serve uncounted.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote, unquote_to_bytes

EXACT: Final = "exact"
"""The reading of Starlette: the decoded path, without the root path."""

_Transformation: TypeAlias = Callable[[str], str]

# What some router reads in another way, wherever it stands; so are segments that are empty or begin with a dot.
_not_plain: Final = re.compile(r"[^A-Za-z0-9_~!$&'()*+,=:@./-]").search
_SLASHES: Final = re.compile("/{2,}")
_ENCODED_SLASH: Final = re.compile(b"%2[fF]")
_CUT: Final = re.compile("[;?#]")
_AUTHORITY: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_UNDECODABLE: Final = "�"


class Reading(NamedTuple):
    """A path as some router reads it.

    Args:
        name: In which way.
        path: What it matches then.
    """

    name: str
    path: str


def is_plain(path: str, raw: bytes | None) -> bool:
    """Return whether all routers read a path alike; most paths are so.

    Args:
        path: The path, decoded.
        raw: The path as it was sent; None if that is not known.
    """
    return (
        path.startswith("/")
        and (path == "/" or not path.endswith("/"))
        and "//" not in path
        and "/." not in path
        and (raw is None or b"%" not in raw)
        and _not_plain(path) is None
    )


def readings_of(path: str, raw: bytes | None = None, whole: str = "", root: str = "") -> list[Reading]:
    """Return the readings of a path, each path once, the exact one first.

    There are at most about 200, of a path that was made to have many; a plain one has one.

    Args:
        path: The path, decoded, without the root path.
        raw: The path as it was sent, without the query; None if that is not known.
        whole: The path as the server told it, decoded; empty: the same as `path`.
        root: The root path.
    """
    found: dict[str, str] = {}
    for name, decoded in _decodings(path, raw):
        for rooted_name, rooted in _at_roots(name, decoded, whole if name == EXACT else decoded, root):
            _add_forms(found, rooted_name, rooted)
    return [Reading(name, spelled) for spelled, name in found.items()]


def _decodings(path: str, raw: bytes | None) -> list[tuple[str, str]]:
    found = [(EXACT, path)]
    if raw is not None and b"%" in raw:
        # Decoded but for the slashes, which then are no separators.
        kept = _ENCODED_SLASH.sub(b"%252F", raw)
        found.append(("encoded slash kept", unquote(kept.decode("latin-1"))))
    if "%" in path:
        found.append(("decoded again", unquote(path)))
    if _UNDECODABLE in path:
        lost = path.replace(_UNDECODABLE, "")
        if raw is not None:
            lost = unquote_to_bytes(raw).decode("utf-8", "ignore")
        found.append(("undecodable bytes dropped", lost))
    return found


def _at_roots(name: str, path: str, whole: str, root: str) -> list[tuple[str, str]]:
    found = [(name, path)]
    if not path.startswith("/"):
        authority = _AUTHORITY.match(path)
        # A client may send the whole URL as if to a proxy; some servers pass it on.
        found.append((_with(name, "authority dropped"), path[authority.end() :] if authority else f"/{path}"))
        if "/" in path:  # Werkzeug's dispatcher takes what comes before the first slash for the root path
            found.append((_with(name, "first segment dropped"), path[path.index("/") :]))
    if root:
        found.append((_with(name, "root path kept"), whole or path))
        found.append((_with(name, "root path added"), f"{root}{path}"))
        removed = _with(name, "root path removed")
        found += [(removed, text[len(root) :]) for text in (path, whole) if text.startswith(root)]
    return found


def _add_forms(found: dict[str, str], name: str, path: str) -> None:
    """Add what each transformation makes of a path by itself, and what they make of it one after the other."""
    path = path or "/"
    found.setdefault(path, name)
    together, together_name = path, name
    for what, transform in _TRANSFORMATIONS:
        alone = transform(path)
        if alone != path:
            found.setdefault(alone, _with(name, what))
        following = transform(together)
        if following != together:
            together, together_name = following, _with(together_name, what)
            found.setdefault(together, together_name)


def _with(name: str, what: str) -> str:
    return what if name == EXACT else f"{name}, {what}"


def _cut(path: str) -> str:
    end = _CUT.search(path)
    return path if end is None else path[: end.start()] or "/"


def _strip(path: str) -> str:
    # Starlette's `path` parameter takes no line break; those of others do, so that it counts without.
    return path.strip().replace("\n", "") or "/"


def _replace_backslashes(path: str) -> str:
    return path.replace("\\", "/")


def _remove_dots(path: str) -> str:
    """Remove the segments `.` and `..` (RFC 3986, section 5.2.4)."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


def _merge_slashes(path: str) -> str:
    return _SLASHES.sub("/", path) if "//" in path else path


def _drop_slash(path: str) -> str:
    return path[:-1] if path.endswith("/") and path != "/" else path


_TRANSFORMATIONS: Final[tuple[tuple[str, _Transformation], ...]] = (
    ("query in the path dropped", _cut),
    ("white space dropped", _strip),
    ("backslashes turned", _replace_backslashes),
    ("dot segments removed", _remove_dots),
    ("slashes merged", _merge_slashes),
    ("trailing slash dropped", _drop_slash),
)
