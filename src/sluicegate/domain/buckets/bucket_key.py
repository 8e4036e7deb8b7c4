"""The only place that knows how a bucket is named in a storage.

`rate_limit:{scope}:{identifier}:{endpoint}`, and `rate_limit:global:{endpoint}`. A scope has no colon, an identifier's are
escaped, and the endpoint stands last: two different triples never share a key.
"""

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

from sluicegate.domain.arguments import plain_text
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rules.rule import RateLimitScope

# The separator, the escape, Redis Cluster's hash-tag braces, control characters, and surrogates, which UTF-8 refuses.
_SPECIAL: Final = re.compile(r"[%:{}\x00-\x1f\x7f\ud800-\udfff]")
_find_special: Final[Callable[[str], re.Match[str] | None]] = _SPECIAL.search
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class KeyFormat:
    """Name buckets.

    Args:
        prefix: What every key begins with: up to 64 letters, digits or any of `_.:-`.
        identifier_secret: If given, keys carry identifiers as a BLAKE2b hash keyed with it (RFC 7693), 128 bits in
            hexadecimal: the storage does not tell who was limited. At most 64 bytes.
        hash_tag: Whether to put braces round the identifier, so that on a Redis Cluster all rules of one identifier live
            in one slot.

    Raises:
        InvalidInputError: If the prefix or the secret is not of that form.
        InvalidTypeError: If the secret is not of bytes.
    """

    __slots__ = ("_hash_tag", "_prefix", "_secret")

    # Any object is taken and checked here: compiled code would refuse another type with an error that names no field.
    def __init__(
        self, prefix: object = "rate_limit", *, identifier_secret: object = None, hash_tag: bool = False
    ) -> None:
        self._prefix = _require_prefix(prefix)
        self._secret = _require_secret(identifier_secret)
        self._hash_tag = hash_tag

    def frame(self, scope: str, endpoint: str, variant: str = "") -> tuple[str, str | None]:
        """Return the parts of a key before and after its identifier; for the global scope the whole key and None.

        Args:
            scope: What the rule counts by.
            endpoint: The endpoint as the rule names it: a template, not a concrete path.
            variant: What tells apart several rules of one scope on one endpoint; empty for the first. It follows the
                scope after a `~`, which a scope's name cannot have. A number begins with `#`, which a rule's name cannot have.
        """
        scope = f"{scope}~{variant}" if variant else str(scope)
        if scope.partition("~")[0] == RateLimitScope.GLOBAL:
            return f"{self._prefix}:{scope}:{endpoint}", None
        brace, closing = ("{", "}") if self._hash_tag else ("", "")
        return f"{self._prefix}:{scope}:{brace}", f"{closing}:{endpoint}"

    @property
    def prefix(self) -> str:
        """What every key begins with."""
        return self._prefix

    def prefixes(self, scopes: Iterable[str]) -> set[str]:
        """Return what the keys of some scopes begin with, up to the identifier or the variant."""
        return {f"{self._prefix}:{scope}{end}" for scope in scopes for end in ":~"}

    def encode(self, identifier: str) -> str:
        """Return an identifier as keys write it: readable where it is ordinary, injective always.

        Args:
            identifier: The client; a plain text as `arguments.require_identifier` returns it.
        """
        if self._secret is not None:
            return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=16, key=self._secret).hexdigest()
        if identifier.isalnum() or (
            ":" not in identifier
            and "%" not in identifier
            and "{" not in identifier
            and "}" not in identifier
            and identifier.isprintable()  # no control characters and no surrogates
        ):  # said again below, by a search that takes three times as long
            return identifier
        if _find_special(identifier) is None:
            return identifier
        return _SPECIAL.sub(_escape, identifier)

    def __repr__(self) -> str:
        return f"KeyFormat(prefix={self._prefix!r}, hashed={self._secret is not None}, hash_tag={self._hash_tag})"


def _require_prefix(prefix: object) -> str:
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InvalidInputError(f"key_prefix={prefix!r:.80}: expected up to 64 letters, digits or any of _.:-")
    return plain_text(prefix)


def _require_secret(secret: object) -> bytes | None:
    """Return a secret as bytes; no message shows it."""
    if secret is None:
        return None
    if not isinstance(secret, bytes | bytearray):
        raise InvalidTypeError(f"identifier_secret: expected bytes, not {type(secret).__name__}")
    plain = bytes(secret)
    if not 1 <= len(plain) <= blake2b.MAX_KEY_SIZE:
        raise InvalidInputError("identifier_secret: expected 1 to 64 bytes")
    return plain


def _escape(match: re.Match[str]) -> str:
    return "".join([f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass")])


def key_bytes(key: str) -> int:
    """Return about how much memory a key takes at most, beside what every text takes.

    Python keeps a text that is not ASCII with up to four bytes a character, and once more in UTF-8 when it has been sent.
    """
    return len(key) if key.isascii() else 8 * len(key)
