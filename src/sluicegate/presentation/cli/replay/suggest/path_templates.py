"""Infer endpoint templates from the paths of a log: `GET /users/17/orders` is one of `GET /users/{id:int}/orders`.

A segment of a path becomes a parameter

- by what it is: a number, a UUID, a token (16 or more hexadecimal digits, or 20 or more letters and digits mixed), a date, or
  what no template can spell (braces, brackets, controls, more than 64 characters);
- by its spread: among the texts at one place, those that have less than a twentieth of its requests become `{slug}` if there
  are at least 12 of them. Where the names of resources stand, at the beginning of a path and after `api` or `v1`, there must
  be 200 of them, or 50 with fewer than 5 requests each on average: an API may have many resources, and each is a limit of
  its own.

What is below the merged texts is merged as well, and looked at in the same way. Of a path of more than 24 segments the first
eight count, and the rest is one parameter.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.routing.template import parse_endpoint

MIN_SPREAD = 12
_MIN_RESOURCES = 200
_MIN_RARE_RESOURCES = 50
_RARE_REQUESTS = 5
_RARE_SHARE = 20  # one in twenty
_LONGEST_LITERAL = 64
_LONGEST_ENDPOINT = 512  # the limiter refuses more than 1,024 bytes
_MAX_SEGMENTS = 24
_KEPT_SEGMENTS = 8  # of a path with more
_REST = "{rest:path}"
_ANY_TEXT = 2  # the generality of a parameter that any segment fits

_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_HEX = re.compile(r"(?=.*[0-9])[0-9a-fA-F]{16,}")
_TOKEN = re.compile(r"(?=.*[0-9])(?=.*[A-Z])(?=.*[a-z])[A-Za-z0-9_-]{20,}")
_PREFIX = re.compile(r"api|rest|graphql|v[0-9]{1,3}(?:\.[0-9]{1,3})?", re.IGNORECASE)


class InferredEndpoint(msgspec.Struct, frozen=True):
    """A template.

    Args:
        endpoint: The method and the template, as a rules file names it.
        requests: How many requests it stands for.
    """

    endpoint: str
    requests: int


class _Node:
    """A place in the tree of paths: what may follow, and how many requests end here, by method."""

    __slots__ = ("children", "ends", "requests")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.ends: dict[str, int] = {}
        self.requests = 0

    def absorb(self, other: "_Node") -> None:
        """Add another place's requests to this one's."""
        self.requests += other.requests
        for method, count in other.ends.items():
            self.ends[method] = self.ends.get(method, 0) + count
        for text, child in other.children.items():
            mine = self.children.get(text)
            if mine is None:
                self.children[text] = child
            else:
                mine.absorb(child)


def infer(requests: Mapping[tuple[str, str], int]) -> list[InferredEndpoint]:
    """Return the templates of some requests, such that each precedes those that are more general.

    Args:
        requests: How often each method and decoded path was asked for. `HEAD` is counted with `GET`. Methods that are not in
            capitals and paths that do not begin with a slash are left out.
    """
    root = _Node()
    for (method, path), count in requests.items():
        if path.startswith("/") and _METHOD.fullmatch(method):
            _insert(root, "GET" if method == "HEAD" else method, path, count)
    _merge_spread(root, at_resource=True)
    found = sorted(_endpoints(root, ()), key=lambda item: item[0])
    return [InferredEndpoint(endpoint, count) for _, endpoint, count in found]


def _insert(root: _Node, method: str, path: str, count: int) -> None:
    node = root
    node.requests += count
    segments = path[1:].split("/", _MAX_SEGMENTS)
    if len(segments) > _MAX_SEGMENTS:
        segments[_KEPT_SEGMENTS:] = [_REST]
    for segment in segments:
        text = segment if segment == _REST else _parameter(segment) or segment
        node = node.children.setdefault(text, _Node())
        node.requests += count
    node.ends[method] = node.ends.get(method, 0) + count


@lru_cache(maxsize=65_536)
def _parameter(segment: str) -> str:
    """Return the parameter that a segment is by itself; empty if it is a text."""
    if segment.isascii() and segment.isdigit():
        return "{id:int}"
    if _UUID.fullmatch(segment):
        return "{uuid:uuid}"
    if _DATE.fullmatch(segment):
        return "{date}"
    if _HEX.fullmatch(segment) or _TOKEN.fullmatch(segment):
        return "{token}"
    if len(segment) > _LONGEST_LITERAL or not segment.isprintable() or not _is_spellable(segment):
        return "{slug}"
    return ""


def _is_spellable(segment: str) -> bool:
    """Return whether a template can have a text as it is, beside parameters and at its end."""
    try:
        template = parse_endpoint(f"GET /{{a}}/{segment}")
    except InvalidInputError:
        return False
    return template is not None and template.tokens[-1] == f"/{segment}"


def _is_parameter(text: str) -> bool:
    return text.startswith("{")


def _merge_spread(node: _Node, *, at_resource: bool) -> None:
    literals = {text: child for text, child in node.children.items() if text and not _is_parameter(text)}
    total = sum(child.requests for child in literals.values())
    rare = [text for text, child in literals.items() if child.requests * _RARE_SHARE < total]
    if _is_spread(len(rare), sum(literals[text].requests for text in rare), at_resource=at_resource):
        slug = node.children.pop("{slug}", _Node())
        for text in rare:
            slug.absorb(node.children.pop(text))
        node.children["{slug}"] = slug
    texts = [text for text in node.children if _generality(text) == _ANY_TEXT]
    if len(texts) > 1:  # to a router these are the same
        slug = node.children.pop("{slug}", _Node())
        for text in texts:
            if text != "{slug}":
                slug.absorb(node.children.pop(text))
        node.children["{slug}"] = slug
    for text, child in node.children.items():
        _merge_spread(child, at_resource=at_resource and _PREFIX.fullmatch(text) is not None)


def _is_spread(texts: int, requests: int, *, at_resource: bool) -> bool:
    if not at_resource:
        return texts >= MIN_SPREAD
    return texts >= _MIN_RESOURCES or (texts >= _MIN_RARE_RESOURCES and requests < _RARE_REQUESTS * texts)


_Order = tuple[tuple[int, str], ...]


def _endpoints(node: _Node, segments: tuple[str, ...]) -> Iterator[tuple[_Order, str, int]]:
    if segments:
        order = tuple((_generality(text), text) for text in segments)
        for method, count in node.ends.items():
            endpoint = f"{method} /{'/'.join(_numbered(segments))}"
            if len(endpoint.encode()) <= _LONGEST_ENDPOINT:
                yield order, endpoint, count
    for text, child in node.children.items():
        yield from _endpoints(child, (*segments, text))


def _generality(text: str) -> int:
    if not _is_parameter(text):
        return 0
    if text == _REST:
        return _ANY_TEXT + 1
    return 1 if ":" in text else _ANY_TEXT


def _numbered(segments: tuple[str, ...]) -> Iterator[str]:
    """Yield segments with the parameters' names made unique: the second `{id:int}` is `{id_2:int}`."""
    seen: dict[str, int] = {}
    for text in segments:
        if not _is_parameter(text):
            yield text
            continue
        name, colon, converter = text[1:-1].partition(":")
        seen[name] = number = seen.get(name, 0) + 1
        yield f"{{{name if number == 1 else f'{name}_{number}'}{colon}{converter}}}"
