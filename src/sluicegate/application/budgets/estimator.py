"""Estimates of what a call will cost, from what calls like it did cost."""

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from math import ceil
from typing import Final

from sluicegate.domain.arguments import require_cost, require_text
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.runtime.mutex import new_mutex

_MOST_WINDOW: Final = 10_000
_MOST_SERIES: Final = 100_000


class Estimator:
    """Estimate costs by a quantile of the last ones, for each rule and label. Safe to share between threads.

    Memory is bounded: of each series the last `window` costs are kept, and of more than `max_series` series the one that was
    not used for longest is forgotten. What is estimated is of this process.

    Args:
        quantile: Which share of the calls should cost no more than the estimate, above 0, at most 1.
        window: How many of the last costs of a series count, 1 to 10,000.
        max_series: How many series are kept, 1 to 100,000.
        initial: The estimate for a series of which nothing is known, where no maximum is given either.

    Raises:
        InvalidInputError: If a number is out of range.
    """

    def __init__(
        self, *, quantile: float = 0.95, window: int = 256, max_series: int = 1_000, initial: int = 1_000
    ) -> None:
        if isinstance(quantile, bool) or not isinstance(quantile, int | float):
            raise InvalidTypeError(f"quantile={quantile!r}: expected a number above 0, at most 1")
        if not 0 < quantile <= 1:
            raise InvalidInputError(f"quantile={quantile!r}: expected above 0, at most 1")
        self._quantile = quantile
        self._window = _require("window", window, _MOST_WINDOW)
        self._max_series = _require("max_series", max_series, _MOST_SERIES)
        self._initial = _require("initial", initial, 10**12)
        self._series: OrderedDict[tuple[str, str], _Series] = OrderedDict()
        self._mutex = new_mutex()

    def observe(self, rule: str, label: str, cost: int) -> None:
        """Note what a call did cost.

        Args:
            rule: The rule's name.
            label: What its calls have in common, such as a model.
            cost: Tokens, 0 or more.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        tokens = require_cost(cost)
        key = require_text("rule", rule), require_text("label", label)
        with self._mutex:
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = _Series()
                if len(self._series) > self._max_series:
                    self._series.popitem(last=False)
            self._series.move_to_end(key)
            series.add(tokens, self._window)

    def estimate(self, rule: str, label: str, *, client_max: int | None = None, operator_max: int | None = None) -> int:
        """Return what to reserve for a call, at least 1.

        Args:
            rule: The rule's name.
            label: What its calls have in common.
            client_max: The most that the client asked for, such as `max_tokens`; None: it did not say.
            operator_max: The most that a call may reserve; None: no bound.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        caps = [require_cost(cap) for cap in (client_max, operator_max) if cap is not None]
        key = require_text("rule", rule), require_text("label", label)
        with self._mutex:
            series = self._series.get(key)
            known = None if series is None else series.at(self._quantile)
            if series is not None:
                self._series.move_to_end(key)
        if known is None:
            known = min(caps, default=self._initial)
        return max(1, min([known, *caps]))

    def __len__(self) -> int:
        return len(self._series)

    def __repr__(self) -> str:
        return f"Estimator(quantile={self._quantile}, series={len(self)})"


class _Series:
    """The last costs of calls that are alike, in the order of time and by size."""

    __slots__ = ("_by_size", "_by_time")

    def __init__(self) -> None:
        self._by_time: deque[int] = deque()
        self._by_size: list[int] = []

    def add(self, cost: int, window: int) -> None:
        """Note one more, and forget those that no longer count."""
        self._by_time.append(cost)
        insort(self._by_size, cost)
        if len(self._by_time) > window:
            del self._by_size[bisect_left(self._by_size, self._by_time.popleft())]

    def at(self, quantile: float) -> int:
        """Return the least cost that so large a share of the calls did not exceed (the nearest rank)."""
        return self._by_size[ceil(quantile * len(self._by_size)) - 1]


def _require(name: str, value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidTypeError(f"{name}={value!r}: expected a whole number")
    if not 1 <= value <= most:
        raise InvalidInputError(f"{name}={value}: expected 1 to {most}")
    return value
