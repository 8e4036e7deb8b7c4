"""What is reserved or held, as callers carry it: by the object, or by an id from one process to another."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rules.rule import OnStorageError


class ClaimName(msgspec.Struct, frozen=True, gc=False):  # here and below: nothing that could refer back
    """What tells a reservation or a hold from all others, in every process.

    Args:
        number: What names the claims in their buckets; 0: nothing was claimed.
        endpoint: The endpoint, as the caller named it.
        identifier: Who asked, as the caller named them.
        by_rule: Whether its costs were given by rule.
        degraded: The failure policy that answered in the storage's place; empty: the storage did.
        also: The other endpoints whose rules were asked as well.
    """

    number: int
    endpoint: str
    identifier: str | dict[str, str]
    by_rule: bool = False
    degraded: str = ""
    also: tuple[str, ...] = ()


class Claimed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What reservations and holds have in common.

    Args:
        allowed: Whether the call may be made.
        result: What a check would have answered.
        expires_in: Seconds from the call after which it ends by itself, unless it is extended; 0.0 where nothing was claimed.
        degraded: The failure policy that answered in the storage's place. With `local` it is counted, and settled, in this
            process; else nothing counts it.
        name: What tells it from all others.
    """

    allowed: bool
    result: RateLimitResult
    expires_in: float
    degraded: OnStorageError | None = None
    name: ClaimName

    @property
    def id(self) -> str:
        """A text that stands for it in any process. It contains the identifier: treat it alike."""
        name = self.name
        identifier = name.identifier
        named = (
            _to_bytes(identifier)
            if isinstance(identifier, str)
            else {_to_bytes(scope): _to_bytes(one) for scope, one in identifier.items()}
        )
        also = tuple(map(_to_bytes, name.also))
        parts = _IdParts(name.number, _to_bytes(name.endpoint), named, name.by_rule, name.degraded, also)
        return urlsafe_b64encode(msgspec.msgpack.encode(parts)).rstrip(b"=").decode()


class Reservation(Claimed, frozen=True, kw_only=True, gc=False):
    """Tokens that are taken until a commit tells what the call really cost.

    Args:
        cost: The tokens; by rule, if they were given so.
    """

    cost: int | dict[str, int]


class Hold(Claimed, frozen=True, kw_only=True, gc=False):
    """A call in flight."""


class RuleSettlement(msgspec.Struct, frozen=True, gc=False):
    """What became of one rule's part of a reservation.

    Args:
        policy: The rule's name.
        applied: Whether this settlement changed its bucket.
        charged: Tokens that are charged in all.
        returned: Tokens that came back.
        debt: Tokens by which the bucket is below zero now.
    """

    policy: str
    applied: bool
    charged: int
    returned: int
    debt: int


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What became of a reservation.

    Of several rules, charged, returned and debt are those of the one that is deepest in debt, else of the first.

    Args:
        applied: Whether this call settled it. False: it was settled before, or ended more than ten minutes ago; nothing changed.
        charged: Tokens that are charged in all.
        returned: Tokens that came back. Less than reserved and not charged, if the bucket has refilled meanwhile.
        debt: Tokens by which the bucket is below zero now.
        rules: The same for each rule.
    """

    applied: bool
    charged: int
    returned: int
    debt: int
    rules: tuple[RuleSettlement, ...] = ()


def name_of(claim: object) -> ClaimName:
    """Return what a reservation, a hold or an id names.

    Raises:
        InvalidInputError: If it is a text that is no id.
        InvalidTypeError: If it is something else.
    """
    if isinstance(claim, Claimed):
        return claim.name
    if not isinstance(claim, str):
        raise InvalidTypeError(f"reservation={claim!r:.80}: expected a Reservation, a Hold or the id of one")
    try:
        parts = msgspec.msgpack.decode(urlsafe_b64decode(claim + "=" * (-len(claim) % 4)), type=_IdParts)
        named = parts.identifier
        return ClaimName(
            parts.number,
            _to_text(parts.endpoint),
            _to_text(named) if isinstance(named, bytes) else {_to_text(k): _to_text(v) for k, v in named.items()},
            parts.by_rule,
            parts.degraded,
            tuple(map(_to_text, parts.also)),
        )
    except (ValueError, msgspec.MsgspecError):  # a UnicodeDecodeError is a ValueError
        raise InvalidInputError(f"reservation={claim!r:.20}…: not the id of a reservation or a hold") from None


class _IdParts(msgspec.Struct, frozen=True, array_like=True):
    """A `ClaimName` as ids carry it: texts as bytes, because halves of surrogates are no UTF-8."""

    number: int
    endpoint: bytes
    identifier: bytes | dict[bytes, bytes]
    by_rule: bool
    degraded: str
    also: tuple[bytes, ...]


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
