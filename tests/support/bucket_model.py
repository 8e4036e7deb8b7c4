"""Buckets as the domain's arithmetic moves them, and what to ask of them: what every storage is compared with, to the bit."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.buckets.bucket_spec import MAX_FULL_US, MAX_UNITS, BucketSpec, bucket_spec
from sluicegate.domain.buckets.token_bucket import anchor_after_payment, convert, refill
from sluicegate.infrastructure.redis.calls import PEEK, REFUND, RESET, TAKE

START_US = 1_795_000_000_123_456

Step = tuple[int, int, tuple[tuple[int, int, int], ...]]
"""Verb, microseconds since the step before, and for each request: bucket, spec, and which cost."""


class Buckets:
    """Buckets that move by the domain's arithmetic and are never dropped: a table may drop a full one earlier than Redis."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[BucketSpec, int, int]] = {}

    def call(self, verb: int, requests: Sequence[BucketRequest], now_us: int) -> Any:
        """Carry a step out."""
        seen = [self._look(request, now_us) for request in requests]
        paid = all(level >= request.cost_units for request, (level, _, _) in zip(requests, seen, strict=True))
        levels = []
        for request, (before, tick, anew) in zip(requests, seen, strict=True):
            spec, level, anchor = request.spec, before, tick
            if verb == TAKE and paid:
                level -= request.cost_units
                anchor = anchor_after_payment(spec, before, tick, now_us)
            elif verb == REFUND:
                level = min(spec.capacity, level + request.cost_units)
            if (verb == TAKE and (paid or anew)) or (verb == REFUND and request.key in self._states):
                self._states[request.key] = spec, level, anchor
            elif verb == RESET:
                self._states.pop(request.key, None)
            levels.append(BucketLevel(level, anchor * spec.tick_us - now_us))
        if verb == TAKE:
            return Verdict(paid, tuple(levels))
        return None if verb == RESET else tuple(levels)

    def _look(self, request: BucketRequest, now_us: int) -> tuple[int, int, bool]:
        """Return the level now, the tick from which it counts on, and whether the bucket begins anew."""
        spec = request.spec
        if request.key not in self._states:
            return spec.capacity, -(-now_us // spec.tick_us), False
        stored, level, last = self._states[request.key]
        if stored != spec:
            return *convert(stored, spec, level, last, now_us), True
        level, tick = refill(spec, level, last, now_us)
        return level, tick, tick < last


rates = st.one_of(
    st.integers(1, 60_000_000).map(Fraction),
    st.fractions(Fraction(1, 1440), 1000, max_denominator=1440),
    st.sampled_from([Fraction(7), Fraction(1, 1440), Fraction(600_001 * 60), Fraction(999_983, 1440)]),
)
# Small capacities are where buckets run dry; a rate of one a day fills 30,000 tokens within a century.
specs = st.builds(bucket_spec, st.one_of(st.integers(1, 8), st.integers(1, 30_000)), rates) | st.builds(
    bucket_spec, st.integers(1, 10**6), st.integers(60, 60_000_000).map(Fraction)
)


@st.composite
def coarse_specs(draw: st.DrawFn) -> BucketSpec:
    """Draw a spec whose tick is longer than a microsecond, or whose numbers are near 2**52."""
    per_token = draw(st.integers(1, 10**9))
    max_tokens = draw(st.one_of(st.integers(1, 8), st.integers(1, MAX_UNITS // per_token)))
    per_tick = draw(st.one_of(st.integers(1, 10**6), st.integers(1, MAX_UNITS)))
    tick_us = draw(st.sampled_from([1, 2, 3, 1000, 60_000, 1_000_000]))
    capacity = max_tokens * per_token
    full_ticks = -(-capacity // per_tick)
    assume(full_ticks * tick_us <= MAX_FULL_US)
    return BucketSpec(capacity, per_token, per_tick, tick_us, full_ticks)


specs = specs | coarse_specs()
elapsed = st.one_of(
    st.integers(0, 10),
    st.integers(0, 5_000_000),
    st.integers(0, 90_000_000_000),
    st.integers(-5_000_000, 0),
    st.integers(-90_000_000_000, 0),
)
request_keys = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=3, unique_by=lambda d: d[0]
)
steps = st.tuples(
    st.sampled_from([TAKE, TAKE, TAKE, TAKE, PEEK, REFUND, RESET]),
    st.one_of(st.just(0), elapsed),
    request_keys.map(tuple),
)


def drawn_request(given_specs: list[BucketSpec], key: int, spec_number: int, cost: int) -> BucketRequest:
    """Return a drawn request as a storage gets it."""
    spec = given_specs[spec_number]
    tokens = [1, spec.max_tokens, max(1, spec.max_tokens // 2), min(3, spec.max_tokens)][cost]
    return BucketRequest(f"k{key}", spec, tokens * spec.units_per_token)
