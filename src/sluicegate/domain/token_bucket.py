"""The arithmetic of a token bucket, in integers. Nothing here may read a clock or round in a client's favour.

A bucket refills `units_per_tick` units in each tick of `tick_us` microseconds, a token is `units_per_token` units, and
all of these are whole numbers, so that a rate such as 7 tokens a minute is kept without error for ever. Its state is two
numbers: the level at the instant `last` (a count of ticks). `token_bucket.lua` says the same in Lua, where numbers are
doubles, which is why `MAX_UNITS` leaves every sum below 2**53.
"""

from collections.abc import Sequence
from math import inf

from sluicegate.domain.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.decision import RateLimitResult

_SECOND_US = 1_000_000


def refill(spec: BucketSpec, level: int, last: int, now_us: int) -> tuple[int, int]:
    """Return the level at `now_us` and the tick from which it counts on.

    A clock that stepped back refills nothing and the bucket counts on from `last`. If it stepped back by more than the
    time to full, waiting for it to catch up would deny for long, so the level is taken over to the new time as it is.
    A full bucket counts from the tick that begins next, never from before it was asked: with ticks longer than a
    microsecond, counting from the tick's beginning would pay for time that had passed already.

    Args:
        spec: The bucket's arithmetic.
        level: Units at the tick `last`.
        last: The tick at which `level` held.
        now_us: The storage's clock.
    """
    tick_us = spec.tick_us
    tick = now_us if tick_us == 1 else now_us // tick_us
    elapsed = tick - last
    if elapsed > 0:
        level += elapsed * spec.units_per_tick
        if level < spec.capacity:
            return level, tick
        return spec.capacity, tick if tick_us == 1 else -(-now_us // tick_us)
    if -elapsed <= spec.full_ticks:
        return level, last
    return level, -(-now_us // tick_us)


def anchor_after_payment(spec: BucketSpec, level: int, tick: int, now_us: int) -> int:
    """Return the tick from which a bucket counts on once it is paid from.

    What flows in during a tick longer than a microsecond is in the level only when the next one begins. If it would have
    filled the bucket by then, part of it may have found no room, and none of it is counted: the payment must not make room
    for what was lost before.

    Args:
        spec: The bucket's arithmetic.
        level: Units before the payment.
        tick: The tick from which they count on, as `refill` has it.
        now_us: The storage's clock.
    """
    if spec.tick_us == 1 or level + spec.units_per_tick <= spec.capacity:
        return tick
    return max(tick, -(-now_us // spec.tick_us))


def convert(old: BucketSpec, new: BucketSpec, level: int, last: int, now_us: int) -> tuple[int, int]:
    """Translate a bucket's state when its rule has changed: refill until now at the old rate, keep the tokens.

    Tokens above the new capacity are lost; a greater capacity adds none. The fraction of a token is kept to within two
    units, in doubles and never upwards, so that Lua and Python agree to the bit.

    Args:
        old: The arithmetic that the state was written under.
        new: The arithmetic to translate it to.
        level: Units of the old kind.
        last: The old tick at which `level` held.
        now_us: The storage's clock.
    """
    level, last = refill(old, level, last, now_us)
    tokens, part = divmod(level, old.units_per_token)
    part_units = max(0, int(part / old.units_per_token * new.units_per_token) - 1)
    anchor_us = max(last * old.tick_us, now_us)
    return min(new.capacity, tokens * new.units_per_token + part_units), -(-anchor_us // new.tick_us)


def full_at_us(spec: BucketSpec, level: int, last: int) -> int:
    """Return the instant in microseconds from which the bucket is full, and equal to an absent one."""
    return (last - (level - spec.capacity) // spec.units_per_tick) * spec.tick_us


def to_result(request: BucketRequest, bucket_level: BucketLevel, *, allowed: bool) -> RateLimitResult:
    """Derive a client's answer from what a storage told.

    Args:
        request: What was asked.
        bucket_level: What the storage told.
        allowed: Whether the whole check, of which this may be one bucket of several, was paid.
    """
    return result_at(request.spec, request.cost_units, bucket_level.level, bucket_level.effective_in_us, allowed)


def wait_us(spec: BucketSpec, cost_units: int, level: int, effective_in_us: int) -> int:
    """Return the microseconds until a bucket that is short of `cost_units` has them, if nobody else asks.

    Args:
        spec: The bucket's arithmetic.
        cost_units: What was asked for; more than `level`.
        level: What is there.
        effective_in_us: Microseconds until the level holds; see `BucketLevel`.
    """
    return effective_in_us - (level - cost_units) // spec.units_per_tick * spec.tick_us


def result_at(spec: BucketSpec, cost_units: int, level: int, effective_in_us: int, allowed: bool) -> RateLimitResult:
    """Derive a client's answer from a bucket's level: the one place where units become tokens and seconds.

    Args:
        spec: The bucket's arithmetic.
        cost_units: What was asked for.
        level: What is there.
        effective_in_us: Microseconds until the level holds; see `BucketLevel`.
        allowed: Whether the check was paid.
    """
    # What is missing is negative, so that // rounds the wait up.
    missing = level - spec.capacity
    units_per_second = spec.units_per_second
    if units_per_second and not effective_in_us:
        # Rounding up to microseconds and then to seconds is rounding up to seconds.
        reset_seconds = -(missing // units_per_second)
    else:
        reset_us = effective_in_us - missing // spec.units_per_tick * spec.tick_us if missing else 0
        reset_seconds = -(-reset_us // _SECOND_US) if reset_us > 0 else 0
    retry_after = 0.0
    if not allowed and level < cost_units:
        retry_after = wait_us(spec, cost_units, level, effective_in_us) / _SECOND_US
    return RateLimitResult(allowed, retry_after, level // spec.units_per_token, spec.max_tokens, reset_seconds)


def tightest(requests: Sequence[BucketRequest], verdict: Verdict) -> RateLimitResult:
    """Derive the answer of the bucket that binds: the longest wait of a denial, else the fewest tokens left.

    Args:
        requests: What was asked, at least one.
        verdict: What the storage told.
    """
    levels = verdict.levels
    if verdict.allowed:  # most buckets are out of the question before their answers are worked out
        binding, least, tied = 0, inf, False
        for at, request in enumerate(requests):
            remaining = levels[at].level // request.spec.units_per_token
            if remaining < least:
                binding, least, tied = at, remaining, False
            elif remaining == least:
                tied = True
        if not tied:
            return to_result(requests[binding], levels[binding], allowed=True)
    results = [to_result(request, levels[at], allowed=verdict.allowed) for at, request in enumerate(requests)]
    return min(results, key=slack)


def slack(result: RateLimitResult) -> tuple[float, int, int]:
    """Return what of some answers is least for the one that binds."""
    return -result.retry_after, result.remaining, -result.reset_seconds


def impossible(limit: int) -> RateLimitResult:
    """Answer a cost above the capacity: denied, nothing consumed, and no wait would help.

    Args:
        limit: The capacity that was exceeded.
    """
    return RateLimitResult(allowed=False, retry_after=inf, remaining=0, limit=limit, reset_seconds=0)
