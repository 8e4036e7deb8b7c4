"""A rule: how many requests at once, how many a minute, and whose requests are counted together."""

import math
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, Self, TypeAlias, get_args

from sluicegate.domain.arguments import plain_text, require_seconds
from sluicegate.domain.buckets.bucket_spec import MAX_UNITS, BucketSpec, bucket_spec
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rules.rate import SECONDS, exact_rate, parse_in_flight, parse_rate

MAX_TOKENS = 10**12
"""The largest capacity of a rule."""

OnStorageError: TypeAlias = Literal["allow", "local", "deny"]
"""The answer of a check while the storage fails: allow, count in this process (`local`), or deny."""

ON_STORAGE_ERROR: tuple[OnStorageError, ...] = get_args(OnStorageError)

OnExpiry: TypeAlias = Literal["charge", "release"]
"""What becomes of a reservation that nobody settles: it counts as spent (`charge`), or comes back (`release`)."""

ON_EXPIRY: tuple[OnExpiry, ...] = get_args(OnExpiry)

MAX_IN_FLIGHT = 10_000
"""The greatest number of calls in flight that a rule can allow."""

DEFAULT_HOLD_SECONDS = 60
"""How long a hold or a reservation lasts if nobody says otherwise."""

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
        max_debt: How many tokens below zero a reservation that costs more than was reserved may bring the bucket; None:
            `max_tokens`; 0: not at all.
        on_expiry: What becomes of a reservation that nobody settles in time: `charge` or `release`.
        hold_seconds: If given, the rule counts calls in flight: `max_tokens` at the same time, each for so many seconds if nobody
            ends or renews it. `in_flight` builds such a rule. The rate plays no part in it.

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
    max_debt: int | None = field(default=None, kw_only=True)
    on_expiry: OnExpiry = field(default="charge", kw_only=True)
    hold_seconds: float | None = field(default=None, kw_only=True)
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
        plain["on_expiry"] = _require_on_expiry(self.on_expiry)
        for field_name, value in plain.items():
            object.__setattr__(self, field_name, value)
        if self.hold_seconds is not None:
            self._require_in_flight(self.hold_seconds)
            # Holds take room from the bucket and give it back; it must never lack any for want of refill.
            spec = BucketSpec(self.max_tokens, 1, self.max_tokens, 1, 1)
        else:
            spec = bucket_spec(self.max_tokens, exact_rate(self.refill_rate))
        object.__setattr__(self, "spec", spec)
        if self.max_debt is not None:
            most = min(MAX_TOKENS, MAX_UNITS // spec.units_per_token)
            object.__setattr__(self, "max_debt", _require_int("max_debt", self.max_debt, 0, most))

    @property
    def counts_in_flight(self) -> bool:
        """Whether it counts calls in flight, in place of calls in the course of time."""
        return self.hold_seconds is not None

    @property
    def max_debt_units(self) -> int:
        """How far below zero the bucket's level may be brought, in units."""
        return self.spec.capacity if self.max_debt is None else self.max_debt * self.spec.units_per_token

    @property
    def seconds_per_token(self) -> float:
        """Seconds that one token takes to refill."""
        return 60 / self.refill_rate

    @property
    def full_seconds(self) -> int:
        """Seconds from empty to full, rounded up. Over longer periods than this, the refill rate is the limit."""
        if self.hold_seconds is not None:
            return math.ceil(self.hold_seconds)
        return -(-self.spec.full_ticks * self.spec.tick_us // 1_000_000)

    @property
    def ttl_seconds(self) -> int:
        """Seconds that a storage keeps an unused bucket: the time until it is full, and one second more."""
        return self.full_seconds + 1

    @property
    def policy(self) -> str:
        """The rule's name for clients and reports: its own, else one made of scope, capacity and seconds to full."""
        if self.name:
            return self.name
        return f"{self.scope}-{self.max_tokens}-{'in-flight' if self.counts_in_flight else f'{self.full_seconds}s'}"

    @property
    def lease_tokens(self) -> int:
        """The most tokens that a process may borrow at a time; 0: none.

        Without a size it is a quarter of the capacity: a few processes find something, and storages lend less as a rule.
        """
        return max(1, self.max_tokens // 4) if self.lease is True else int(self.lease)

    def with_limit_of(self, other: "RateLimitRule") -> "RateLimitRule":
        """Return this rule with the capacity and the rate of another one; scope, cost and effect stay its own."""
        lease = self.lease if isinstance(self.lease, bool) else min(self.lease, other.max_tokens)
        return replace(
            self,
            max_tokens=other.max_tokens,
            refill_rate=other.refill_rate,
            lease=lease,
            hold_seconds=other.hold_seconds,
        )

    @classmethod
    def in_flight(
        cls, n: int, *, scope: RateLimitScope | str = RateLimitScope.IP, hold_seconds: float = DEFAULT_HOLD_SECONDS
    ) -> Self:
        """Allow `n` calls at the same time. Each is given back when it ends, at the latest after `hold_seconds` unless renewed.

        `hold`, `acquire` and `reserve` of a limiter ask such a rule; `is_allowed`, which could give nothing back, does not.
        """
        _require_int("n", n, 1, MAX_IN_FLIGHT)
        require_seconds("hold_seconds", hold_seconds)
        return cls(n, _whole(n * 60 / hold_seconds), scope, hold_seconds=hold_seconds)

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
        """Parse `100/minute`, `5 per 10 seconds`, `100/minute burst 20`, `5/minute per user` or `4 in flight per user`.

        Args:
            text: The notation.
            scope: The scope if the text names none; None: `ip`. If the text names a different one, that is an error.

        Raises:
            InvalidInputError: If the text does not have that form, or the rule would be invalid.
        """
        in_flight = parse_in_flight(text) if isinstance(text, str) else None
        if in_flight is not None:
            count, named = in_flight
            _require_one_scope(text, named, scope)
            return cls.in_flight(count, scope=named or scope or RateLimitScope.IP)
        _, rate, burst, named = parse_rate(text)
        _require_one_scope(text, named, scope)
        per_minute = rate.numerator if rate.denominator == 1 else rate.numerator / rate.denominator
        return cls(max_tokens=burst, refill_rate=per_minute, scope=named or scope or RateLimitScope.IP)

    def _require_in_flight(self, hold_seconds: object) -> None:
        """Refuse what makes no sense where calls in flight are counted."""
        require_seconds("hold_seconds", hold_seconds)
        _require_int("max_tokens", self.max_tokens, 1, MAX_IN_FLIGHT)
        for name, value, only in (
            ("cost", self.cost, 1),
            ("lease", self.lease, False),
            ("shadow", self.shadow, False),
            ("max_debt", self.max_debt, None),
        ):
            if value != only:
                raise InvalidInputError(f"{name}={value!r}: a rule of calls in flight has no {name} of its own")

    @classmethod
    def parse_all(cls, text: str, *, scope: RateLimitScope | str | None = None) -> tuple[Self, ...]:
        """Parse one rate or several, separated by semicolons: `5/minute; 100/hour per user`.

        Args:
            text: The notation.
            scope: As for `parse`.

        Raises:
            InvalidInputError: If one of them does not have that form, or its rule would be invalid.
        """
        if not isinstance(text, str):
            raise InvalidTypeError(f"rate={text!r:.80}: expected a text such as '100/minute'")
        return tuple(cls.parse(part, scope=scope) for part in text.split(";"))

    @classmethod
    def _per(cls, unit: str, n: int, burst: int | None, scope: RateLimitScope | str) -> Self:
        _require_int("n", n, 1, MAX_TOKENS)
        seconds = SECONDS[unit]
        per_minute = n * 60 / seconds if n * 60 % seconds else n * 60 // seconds
        return cls(max_tokens=n if burst is None else burst, refill_rate=per_minute, scope=scope)


def _require_one_scope(text: str, named: str | None, scope: str | None) -> None:
    if named and scope is not None and named != scope:
        raise InvalidInputError(f"rate={text!r}: names the scope {named!r}, but scope={str(scope)!r} was given")


def _whole(number: float) -> float:
    """Return a float as an integer if it is one."""
    return int(number) if number == int(number) else number


def _require_on_expiry(value: object) -> OnExpiry:
    for known in ON_EXPIRY:
        if value == known:
            return known
    raise InvalidInputError(f"on_expiry={value!r:.80}: expected one of {', '.join(ON_EXPIRY)}")


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
