"""What a storage is asked, and what it answers."""

from typing import Final

from mypy_extensions import i64, mypyc_attr

from sluicegate.domain.buckets.bucket_spec import BucketSpec


@mypyc_attr(acyclic=True, free_list_len=1)
class BucketRequest:
    """Ask one bucket for tokens.

    Args:
        key: The bucket's name in the storage.
        spec: Its arithmetic.
        cost_units: Units to take, 0 to `spec.capacity`; 0 in a peek. In a settlement, what the work really cost.
        lease_units: The most units that a process may borrow at a time, where a storage lends; 0: none.
    """

    __slots__ = ("cost_units", "key", "lease_units", "spec")

    def __init__(self, key: str, spec: BucketSpec, cost_units: i64, lease_units: i64 = 0) -> None:
        self.key: Final = key
        self.spec: Final = spec
        self.cost_units: Final[i64] = cost_units
        self.lease_units: Final[i64] = lease_units

    def with_cost(self, cost_units: i64) -> "BucketRequest":
        """Return a request to the same bucket at another cost."""
        return BucketRequest(self.key, self.spec, cost_units, self.lease_units)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketRequest) and (self.key, self.spec, self.cost_units, self.lease_units) == (
            other.key,
            other.spec,
            other.cost_units,
            other.lease_units,
        )

    def __hash__(self) -> int:
        return hash((self.key, self.cost_units))

    def __repr__(self) -> str:
        return f"BucketRequest({self.key!r}, {self.spec!r}, {self.cost_units}, {self.lease_units})"


@mypyc_attr(acyclic=True, free_list_len=1)
class BucketLevel:
    """Tell a bucket's level after a call.

    Args:
        level: Units in the bucket.
        effective_in_us: Microseconds from the call to the instant at which the level holds: 0 as a rule; negative inside a
            tick longer than a microsecond; positive after a clock has stepped back.
    """

    __slots__ = ("effective_in_us", "level")

    def __init__(self, level: i64, effective_in_us: i64) -> None:
        self.level: Final[i64] = level
        self.effective_in_us: Final[i64] = effective_in_us

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BucketLevel)
            and self.level == other.level
            and self.effective_in_us == other.effective_in_us
        )

    def __hash__(self) -> int:
        return hash((self.level, self.effective_in_us))

    def __repr__(self) -> str:
        return f"BucketLevel({self.level}, {self.effective_in_us})"


@mypyc_attr(acyclic=True, free_list_len=1)
class Verdict:
    """Tell what a storage did with some requests: paid all of them or none.

    Args:
        allowed: Whether they were paid.
        levels: The buckets' levels afterwards, in the order of the requests.
        may_rise: Whether something may come back to one of the buckets at any time, because somebody has reserved it: a denial
            may end before its wait is over.
    """

    __slots__ = ("allowed", "levels", "may_rise")

    def __init__(self, allowed: bool, levels: tuple[BucketLevel, ...], may_rise: bool = False) -> None:
        self.allowed: Final = allowed
        self.levels: Final = levels
        self.may_rise: Final = may_rise

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and self.allowed == other.allowed and self.levels == other.levels

    def __hash__(self) -> int:
        return hash((self.allowed, self.levels))

    def __repr__(self) -> str:
        return f"Verdict({self.allowed}, {self.levels!r})"


@mypyc_attr(acyclic=True, free_list_len=1)
class ClaimTerms:
    """What a cost that is paid leaves in its bucket.

    Args:
        kind: `PAID` (nothing), `CHARGE`, `RELEASE` or `HOLD`; see `claims.py`.
        ttl_us: For how long, counted from the payment by the storage's clock.
    """

    __slots__ = ("kind", "ttl_us")

    def __init__(self, kind: i64, ttl_us: i64) -> None:
        self.kind: Final[i64] = kind
        self.ttl_us: Final[i64] = ttl_us

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClaimTerms) and self.kind == other.kind and self.ttl_us == other.ttl_us

    def __hash__(self) -> int:
        return hash((self.kind, self.ttl_us))

    def __repr__(self) -> str:
        return f"ClaimTerms({self.kind}, {self.ttl_us})"


@mypyc_attr(acyclic=True, free_list_len=1)
class BucketSettlement:
    """What became of one bucket's claim.

    Args:
        found: `NOT_FOUND`, `IN_TIME` or `LATE`; see `claims.py`.
        charged_units: What is charged for it in all: the cost, less what would have exceeded the greatest debt.
        returned_units: What came back.
        level: The bucket's level afterwards, below zero if it is in debt.
    """

    __slots__ = ("charged_units", "found", "level", "returned_units")

    def __init__(self, found: i64, charged_units: i64, returned_units: i64, level: BucketLevel) -> None:
        self.found: Final[i64] = found
        self.charged_units: Final[i64] = charged_units
        self.returned_units: Final[i64] = returned_units
        self.level: Final = level

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BucketSettlement)
            and self.found == other.found
            and self.charged_units == other.charged_units
            and self.returned_units == other.returned_units
            and self.level == other.level
        )

    def __hash__(self) -> int:
        return hash((self.found, self.charged_units, self.returned_units))

    def __repr__(self) -> str:
        return f"BucketSettlement({self.found}, {self.charged_units}, {self.returned_units}, {self.level!r})"
