"""The only place that knows how a bucket is named in a storage.

`rate_limit:{scope}:{identifier}:{endpoint}`, and `rate_limit:global:{endpoint}`. A scope has no colon, an identifier's are
escaped, and the endpoint stands last: two different triples never share a key.
"""

import re
from hashlib import blake2b

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rule import RateLimitScope

MAX_IDENTIFIER_BYTES = 1024
"""The longest identifier or endpoint, in UTF-8: more is an attack on the storage's memory, or a mistake."""

CERTAINLY_SHORT = MAX_IDENTIFIER_BYTES // 4
"""Characters of a text that need not be measured: UTF-8 takes at most four bytes for each."""

# The separator, the escape, Redis Cluster's hash-tag braces, control characters, and surrogates, which UTF-8 refuses.
_SPECIAL = re.compile("[%:{}\x00-\x1f\x7f\ud800-\udfff]")
_has_special = _SPECIAL.search
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class KeyFormat:
    """Name buckets.

    Args:
        prefix: What every key begins with: up to 64 letters, digits or any of `_.:-`.
        identifier_secret: If given, identifiers stand in keys as a BLAKE2b hash keyed with it (RFC 7693), 128 bits in
            hexadecimal: nobody who reads the storage learns who was limited. At most 64 bytes.
        hash_tag: Whether to put braces round the identifier, so that on a Redis Cluster all rules of one identifier live
            in one slot.

    Raises:
        InvalidInputError: If the prefix or the secret is not of that form.
    """

    __slots__ = ("_hash_tag", "_prefix", "_secret")

    def __init__(
        self, prefix: str = "rate_limit", *, identifier_secret: bytes | None = None, hash_tag: bool = False
    ) -> None:
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise InvalidInputError(f"key_prefix={prefix!r}: expected up to 64 letters, digits or any of _.:-")
        if identifier_secret is not None and not 1 <= len(identifier_secret) <= blake2b.MAX_KEY_SIZE:
            raise InvalidInputError("identifier_secret: expected 1 to 64 bytes")
        self._prefix = prefix
        self._secret = identifier_secret
        self._hash_tag = hash_tag

    def frame(self, scope: str, endpoint: str, variant: str = "") -> tuple[str, str | None]:
        """Return what stands before and after an identifier; for the global scope the whole key and None.

        Args:
            scope: Whom the rule counts.
            endpoint: The endpoint as the rule names it: a template, not a concrete path.
            variant: What tells apart several rules of one scope on one endpoint; empty for the first. It follows the
                scope after a `~`, which a scope's name cannot have.
        """
        scope = f"{scope}~{variant}" if variant else str(scope)
        if scope.partition("~")[0] == RateLimitScope.GLOBAL:
            return f"{self._prefix}:{scope}:{endpoint}", None
        brace, closing = ("{", "}") if self._hash_tag else ("", "")
        return f"{self._prefix}:{scope}:{brace}", f"{closing}:{endpoint}"

    def encode(self, identifier: str) -> str:
        """Return an identifier as it stands in a key: readable where it is ordinary, injective always.

        Args:
            identifier: Who is asking; see `require_identifier`.
        """
        if self._secret is not None:
            return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=16, key=self._secret).hexdigest()
        if _has_special(identifier) is None:
            return identifier
        return _SPECIAL.sub(_escape, identifier)

    def __repr__(self) -> str:
        return f"KeyFormat(prefix={self._prefix!r}, hashed={self._secret is not None}, hash_tag={self._hash_tag})"


def require_text(field: str, value: object) -> str:
    """Return a non-empty text of at most 1 KiB, or raise the error that names the field.

    Raises:
        InvalidTypeError: If the value is not a string.
        InvalidInputError: If it is empty or longer than 1024 bytes of UTF-8. A long value is not repeated whole.
    """
    if not isinstance(value, str):
        raise InvalidTypeError(f"{field}={value!r:.80}: expected a string, not {type(value).__name__}")
    if not value:
        raise InvalidInputError(f"{field}='': expected a string that is not empty")
    if len(value) > CERTAINLY_SHORT:
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > MAX_IDENTIFIER_BYTES:
            raise InvalidInputError(
                f"{field}={value[:40]!r}…: {size} bytes long, expected at most {MAX_IDENTIFIER_BYTES}"
            )
    return value


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
