"""A rule: how many requests at once, how many a minute, and whose requests are counted together."""

import math
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, Self, TypeAlias, get_args

from sluicegate.domain.arguments import plain_text
from sluicegate.domain.bucket_spec import BucketSpec, bucket_spec
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rate import SECONDS, exact_rate, parse_rate

MAX_TOKENS = 10**12
"""The largest capacity of a rule."""

OnStorageError: TypeAlias = Literal["allow", "local", "deny"]
"""The answer of a check while the storage fails: allow, count in this process (`local`), or deny."""

ON_STORAGE_ERROR: tuple[OnStorageError, ...] = get_args(OnStorageError)

_SCOPE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9_.*/-]{1,64}")


class RateLimitScope(StrEnum):
    """The kind of identifier that a rule counts by. Any other name, such as `tenant`, can be used as well."""

    IP = "ip"
    USER = "user"
    USER_PROVIDER = "user_provider"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class RateLimitRule:
    """Describe one token bucket per identifier.

    Args:
        max_tokens: The capacity, which is also the largest burst: a whole number, 1 to 10**12.
        refill_rate: Tokens per minute, above 0. A float means the simplest fraction that rounds to it.
        scope: The kind of identifier to count by: a `RateLimitScope` or a name of your own (a-z, 0-9, `_`).
        cost: Tokens that one request takes, 1 to `max_tokens`.
        enabled: Whether the rule applies at all.
        name: The rule's name for clients and reports (letters, digits, `_.*/-`); empty: derived from the rule.
        on_storage_error: The answer while the storage fails; None: the limiter's setting.
        shadow: Whether the rule only observes: it counts every request in its own bucket and reports what it would deny,
            but never denies.
        lease: Whether a process may take several tokens from the bucket at once and spend them without asking the storage:
            False, True (as many as it uses in half a second, at most a quarter of the capacity) or the most it may take, 1
            to `max_tokens`. Storages without leases, and checks of several rules, ignore it.

    Raises:
        InvalidInputError: If a value is out of range, or the bucket could not be counted exactly.
        InvalidTypeError: If a value is of the wrong type.
    """

    max_tokens: int
    refill_rate: float
    scope: RateLimitScope | str
    cost: int = 1
    enabled: bool = True
    name: str = field(default="", kw_only=True)
    on_storage_error: OnStorageError | None = field(default=None, kw_only=True)
    shadow: bool = field(default=False, kw_only=True)
    lease: bool | int = field(default=False, kw_only=True)
    spec: BucketSpec = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        plain: dict[str, object] = {
            "max_tokens": _require_int("max_tokens", self.max_tokens, 1, MAX_TOKENS),
            "refill_rate": _require_rate(self.refill_rate),
            "scope": require_scope(self.scope),
            "cost": _require_int("cost", self.cost, 1, self.max_tokens, "max_tokens"),
        }
        for flag in ("enabled", "shadow"):
            if not isinstance(getattr(self, flag), bool):
                raise InvalidTypeError(f"{flag}={getattr(self, flag)!r}: expected True or False")
        if not isinstance(self.lease, bool):
            plain["lease"] = _require_int("lease", self.lease, 1, self.max_tokens, "max_tokens")
        if not isinstance(self.name, str) or (self.name and not _NAME.fullmatch(self.name)):
            raise InvalidInputError(f"name={self.name!r}: expected up to 64 letters, digits or any of _.*/-")
        plain["name"] = plain_text(self.name)
        if self.on_storage_error is not None:
            plain["on_storage_error"] = require_policy("on_storage_error", self.on_storage_error)
        for field_name, value in plain.items():
            object.__setattr__(self, field_name, value)
        object.__setattr__(self, "spec", bucket_spec(self.max_tokens, exact_rate(self.refill_rate)))

    @property
    def seconds_per_token(self) -> float:
        """Seconds that one token takes to refill."""
        return 60 / self.refill_rate

    @property
    def full_seconds(self) -> int:
        """Seconds from empty to full, rounded up. Over longer periods than this, the refill rate is the limit."""
        return -(-self.spec.full_ticks * self.spec.tick_us // 1_000_000)

    @property
    def ttl_seconds(self) -> int:
        """Seconds that a storage keeps an unused bucket: the time until it is full, and one second more."""
        return self.full_seconds + 1

    @property
    def policy(self) -> str:
        """The rule's name for clients and reports: its own, else one made of scope, capacity and seconds to full."""
        return self.name or f"{self.scope}-{self.max_tokens}-{self.full_seconds}s"

    @property
    def lease_tokens(self) -> int:
        """The most tokens that a process may borrow at a time; 0: none.

        Without a size it is a quarter of the capacity: a few processes find something, and storages lend less as a rule.
        """
        return max(1, self.max_tokens // 4) if self.lease is True else int(self.lease)

    def with_limit_of(self, other: "RateLimitRule") -> "RateLimitRule":
        """Return this rule with the capacity and the rate of another one; scope, cost and effect stay its own."""
        lease = self.lease if isinstance(self.lease, bool) else min(self.lease, other.max_tokens)
        return replace(self, max_tokens=other.max_tokens, refill_rate=other.refill_rate, lease=lease)

    @classmethod
    def per_second(cls, n: int, *, burst: int | None = None, scope: RateLimitScope | str = RateLimitScope.IP) -> Self:
        """Allow `n` requests a second on average and `burst` (default `n`) at once."""
        return cls._per("second", n, burst, scope)

    @classmethod
    def per_minute(cls, n: int, *, burst: int | None = None, scope: RateLimitScope | str = RateLimitScope.IP) -> Self:
        """Allow `n` requests a minute on average and `burst` (default `n`) at once."""
        return cls._per("minute", n, burst, scope)

    @classmethod
    def per_hour(cls, n: int, *, burst: int | None = None, scope: RateLimitScope | str = RateLimitScope.IP) -> Self:
        """Allow `n` requests an hour on average and `burst` (default `n`) at once."""
        return cls._per("hour", n, burst, scope)

    @classmethod
    def per_day(cls, n: int, *, burst: int | None = None, scope: RateLimitScope | str = RateLimitScope.IP) -> Self:
        """Allow `n` requests a day on average and `burst` (default `n`) at once."""
        return cls._per("day", n, burst, scope)

    @classmethod
    def parse(cls, text: str, *, scope: RateLimitScope | str | None = None) -> Self:
        """Parse `100/minute`, `5 per 10 seconds`, `100/minute burst 20` or `5/minute per user`.

        Args:
            text: The notation.
            scope: The scope if the text names none; None: `ip`. If the text names a different one, that is an error.

        Raises:
            InvalidInputError: If the text does not have that form, or the rule would be invalid.
        """
        _, rate, burst, named = parse_rate(text)
        if named and scope is not None and named != scope:
            raise InvalidInputError(f"rate={text!r}: names the scope {named!r}, but scope={str(scope)!r} was given")
        per_minute = rate.numerator if rate.denominator == 1 else rate.numerator / rate.denominator
        return cls(max_tokens=burst, refill_rate=per_minute, scope=named or scope or RateLimitScope.IP)

    @classmethod
    def _per(cls, unit: str, n: int, burst: int | None, scope: RateLimitScope | str) -> Self:
        _require_int("n", n, 1, MAX_TOKENS)
        seconds = SECONDS[unit]
        per_minute = n * 60 / seconds if n * 60 % seconds else n * 60 // seconds
        return cls(max_tokens=n if burst is None else burst, refill_rate=per_minute, scope=scope)


def require_scope(value: object, field_name: str = "scope") -> RateLimitScope | str:
    """Return a scope as a `RateLimitScope` or as the plain text of a name of the user's own.

    Raises:
        InvalidInputError: If it is neither.
        InvalidTypeError: If it is not a text.
    """
    if not isinstance(value, str):
        raise InvalidTypeError(f"{field_name}={value!r:.80}: expected a RateLimitScope or a name of your own")
    text = plain_text(value)
    if not _SCOPE.fullmatch(text):
        raise InvalidInputError(
            f"{field_name}={text!r:.80}: unknown scope; expected one of {', '.join(RateLimitScope)}, or a name of your own"
            " made of a-z, 0-9 and _"
        )
    return RateLimitScope(text) if text in RateLimitScope.__members__.values() else text


def require_policy(field_name: str, value: object) -> OnStorageError:
    """Return a failure policy as one of the plain texts `allow`, `local` and `deny`.

    Raises:
        InvalidInputError: If it is none of them.
    """
    for policy in ON_STORAGE_ERROR:
        if value == policy:
            return policy
    raise InvalidInputError(f"{field_name}={value!r:.80}: expected one of {', '.join(ON_STORAGE_ERROR)}")


def _require_int(field_name: str, value: object, low: int, high: int, high_name: str = "") -> int:
    if not isinstance(value, int) or isinstance(value, bool):  # True is no number of tokens
        raise InvalidTypeError(f"{field_name}={value!r:.80}: expected a whole number, not {type(value).__name__}")
    number = int(value)
    if not low <= number <= high:
        raise InvalidInputError(
            f"{field_name}={number}: expected {low} to {high_name + '=' if high_name else ''}{high}"
        )
    return number


def _require_rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTypeError(f"refill_rate={value!r:.80}: expected tokens per minute, a number")
    number = int(value) if isinstance(value, int) else float(value)
    if not math.isfinite(number) or number <= 0:
        raise InvalidInputError(f"refill_rate={number!r}: expected a finite number of tokens per minute above 0")
    return number
