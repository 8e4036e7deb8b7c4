"""What is asked of a table of buckets while it is locked: objects, because calls of closures cost as much as the work itself."""

from collections.abc import Sequence
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, BucketSettlement, ClaimTerms, Verdict
from sluicegate.domain.buckets.bucket_table import BucketTable, interrupting

_NO_VERDICT: Final = Verdict(allowed=False, levels=())


class TableCall:
    """Something to ask a table; what it answered is kept with the call."""

    __slots__ = ()

    def run(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table."""
        raise NotImplementedError

    def run_within(self, table: BucketTable, now_us: i64) -> None:  # noqa: ARG002 - others do
        """Ask the table in the midst of another call of the same thread.

        Raises:
            StorageError: If that cannot be decided.
        """
        raise interrupting()


class ReserveCall(TableCall):
    """Pay all requests or none, and note their claims; arguments as in `ReservationStorage.reserve`."""

    __slots__ = ("_number", "_requests", "_terms", "verdict")

    def __init__(self, requests: tuple[BucketRequest, ...], number: int, terms: Sequence[ClaimTerms]) -> None:
        self._requests: Final = requests
        self._number: Final = number
        self._terms: Final = terms
        self.verdict: Verdict = _NO_VERDICT

    def run(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table."""
        self.verdict = table.reserve(self._requests, self._number, self._terms, now_us)


class SettleCall(TableCall):
    """Charge what claims really cost; arguments as in `ReservationStorage.settle`."""

    __slots__ = ("_max_debts", "_number", "_requests", "settlements")

    def __init__(self, requests: Sequence[BucketRequest], number: int, max_debts: Sequence[int]) -> None:
        self._requests: Final = requests
        self._number: Final = number
        self._max_debts: Final = max_debts
        self.settlements: tuple[BucketSettlement, ...] = ()

    def run(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table."""
        self.settlements = table.settle(self._requests, self._number, self._max_debts, now_us)


class ExtendCall(TableCall):
    """Let claims end later; arguments as in `ReservationStorage.extend`."""

    __slots__ = ("_number", "_requests", "_ttls_us", "extended")

    def __init__(self, requests: Sequence[BucketRequest], number: int, ttls_us: Sequence[int]) -> None:
        self._requests: Final = requests
        self._number: Final = number
        self._ttls_us: Final = ttls_us
        self.extended = 0

    def run(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table."""
        self.extended = table.extend(self._requests, self._number, self._ttls_us, now_us)


class PeekCall(TableCall):
    """Look at levels."""

    __slots__ = ("_requests", "levels")

    def __init__(self, requests: Sequence[BucketRequest]) -> None:
        self._requests: Final = requests
        self.levels: tuple[BucketLevel, ...] = ()

    def run(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table."""
        self.levels = table.peek(self._requests, now_us)

    def run_within(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table in the midst of another call of the same thread."""
        self.levels = table.peek(self._requests, now_us)


class RefundCall(TableCall):
    """Put tokens back."""

    __slots__ = ("_requests", "levels")

    def __init__(self, requests: Sequence[BucketRequest]) -> None:
        self._requests: Final = requests
        self.levels: tuple[BucketLevel, ...] = ()

    def run(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table."""
        self.levels = table.refund(self._requests, now_us)

    def run_within(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table in the midst of another call of the same thread."""
        self.levels = table.refund_within(self._requests, now_us)


class ResetCall(TableCall):
    """Make buckets full."""

    __slots__ = ("_requests",)

    def __init__(self, requests: Sequence[BucketRequest]) -> None:
        self._requests: Final = requests

    def run(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table."""
        table.reset(self._requests, now_us)

    def run_within(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table in the midst of another call of the same thread."""
        table.reset_within(self._requests, now_us)


class ResetShardCall(TableCall):
    """Make those buckets of a part of the table full whose keys begin in some way; see `ClaimedBuckets.reset_shard`."""

    __slots__ = ("_prefixes", "_shard")

    def __init__(self, shard: int, prefixes: tuple[str, ...]) -> None:
        self._shard: Final = shard
        self._prefixes: Final = prefixes

    def run(self, table: BucketTable, now_us: i64) -> None:
        """Ask the table."""
        table.reset_shard(self._shard, self._prefixes, now_us)
