"""The arithmetic of a token bucket, in integers: the only place in Python where tokens are counted.

A bucket refills `units_per_tick` units in each tick of `tick_us` microseconds and a token is `units_per_token` units. All of
these are whole numbers, so a rate such as 7 tokens a minute is kept without error for ever. The state of a bucket is two
numbers: its level, and the tick `last` at which that level holds. `token_bucket.lua` says the same in Lua, where numbers are
doubles, which is why `MAX_UNITS` keeps every sum below 2**53. Nothing here reads a clock or rounds in a client's favour.
"""

from math import inf
from typing import Final

from mypy_extensions import i64

from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict
from sluicegate.domain.buckets.bucket_spec import MAX_UNITS, BucketSpec
from sluicegate.domain.result import RateLimitResult

_SECOND_US: Final = 1_000_000
_result: Final = RateLimitResult  # compiled code finds it without a look-up in the module's names


def refill(spec: BucketSpec, level: i64, last: i64, now_us: i64) -> tuple[i64, i64]:
    """Return the level at `now_us` and the tick from which it counts on.

    A clock that stepped back refills nothing, and the bucket counts on from `last`. If it stepped back by more than the
    time to full, waiting for it to catch up would deny for long, so the level is taken over to the new time as it is.
    A full bucket counts from the beginning of the next tick, never from an instant before the call: with ticks longer than
    a microsecond that would pay for time that had passed already.

    Args:
        spec: The bucket's arithmetic.
        level: Units at the tick `last`; below zero it is debt.
        last: The tick at which `level` held.
        now_us: The storage's clock.
    """
    tick_us = spec.tick_us
    tick = now_us if tick_us == 1 else now_us // tick_us
    elapsed = tick - last
    if elapsed > 0:
        if elapsed < spec.full_ticks:  # else the product may be beyond all bounds, and is not needed
            level += elapsed * spec.units_per_tick
            if level < spec.capacity:
                return level, tick
        elif level < 0 and elapsed < -((level - spec.capacity) // spec.units_per_tick):  # debt takes longer to fill
            return level + elapsed * spec.units_per_tick, tick
        return spec.capacity, tick if tick_us == 1 else -(-now_us // tick_us)
    if -elapsed <= spec.full_ticks:
        return level, last
    return level, -(-now_us // tick_us)


def anchor_after_payment(spec: BucketSpec, level: i64, anchor: i64, now_us: i64) -> i64:
    """Return the tick from which a bucket counts on once it is paid from.

    What flows in during a tick longer than a microsecond is in the level only when the next one begins. If it would have
    filled the bucket by then, part of it may have found no room, and none of it is counted: the payment must not make room
    for what was lost before.

    Args:
        spec: The bucket's arithmetic.
        level: Units before the payment.
        anchor: The tick from which they count on, as `refill` returned it.
        now_us: The storage's clock.
    """
    if spec.tick_us == 1 or level + spec.units_per_tick <= spec.capacity:
        return anchor
    return max(anchor, -(-now_us // spec.tick_us))


def convert(old: BucketSpec, new: BucketSpec, level: i64, last: i64, now_us: i64) -> tuple[i64, i64]:
    """Translate a bucket's state when its rule has changed: refill until now at the old rate, keep the tokens.

    Tokens above the new capacity are lost; a greater capacity adds none. The fraction of a token is kept to within two
    units, in doubles and never upwards, so that Lua and Python agree to the bit.

    Args:
        old: The arithmetic that the state was written under.
        new: The arithmetic to translate it to.
        level: Units of the old kind.
        last: The old tick at which `level` held.
        now_us: The storage's clock.

    Returns:
        The level in new units and the new tick from which it counts on.
    """
    level, last = refill(old, level, last, now_us)
    tokens: i64 = level // old.units_per_token
    part: i64 = level - tokens * old.units_per_token
    part_units: i64 = max(0, int(float(part) / float(old.units_per_token) * float(new.units_per_token)) - 1)
    anchor_us = max(last * old.tick_us, now_us)
    anchor = -(-anchor_us // new.tick_us)
    if tokens >= new.max_tokens:  # the product could leave the range
        return new.capacity, anchor
    if tokens < -(MAX_UNITS // new.units_per_token) - 1:
        return -MAX_UNITS, anchor
    return max(-MAX_UNITS, min(new.capacity, tokens * new.units_per_token + part_units)), anchor


def full_at_us(spec: BucketSpec, level: i64, last: i64) -> i64:
    """Return the instant in microseconds from which the bucket is full, and equal to an absent one."""
    return (last - (level - spec.capacity) // spec.units_per_tick) * spec.tick_us


def wait_us(spec: BucketSpec, cost_units: i64, level: i64, effective_in_us: i64) -> i64:
    """Return the microseconds until a bucket that is short of `cost_units` has them, if no other check takes from it.

    Args:
        spec: The bucket's arithmetic.
        cost_units: What was asked for; more than `level`.
        level: What is there.
        effective_in_us: Microseconds until the level holds; see `BucketLevel`.
    """
    return effective_in_us - (level - cost_units) // spec.units_per_tick * spec.tick_us


def result(spec: BucketSpec, cost_units: i64, level: i64, effective_in_us: i64, allowed: bool) -> RateLimitResult:
    """Derive the client's answer from a bucket's level: the one place where units become tokens and seconds.

    Args:
        spec: The bucket's arithmetic.
        cost_units: What was asked for.
        level: What is there.
        effective_in_us: Microseconds until the level holds; see `BucketLevel`.
        allowed: Whether the whole check, of which this may be one bucket of several, was paid.
    """
    # What is missing is a negative number, so that // rounds the wait up.
    missing: i64 = level - spec.capacity
    reset_us: i64 = effective_in_us - missing // spec.units_per_tick * spec.tick_us if missing else 0
    reset_seconds: i64 = -(-reset_us // _SECOND_US) if reset_us > 0 else 0
    retry_after = 0.0
    if not allowed and level < cost_units:
        retry_after = float(wait_us(spec, cost_units, level, effective_in_us)) / 1e6
    remaining = level // spec.units_per_token if level > 0 else 0
    return _result(allowed, retry_after, remaining, spec.max_tokens, reset_seconds)


def binding(requests: tuple[BucketRequest, ...], verdict: Verdict) -> int:
    """Return which of several buckets binds: the one with the longest wait of a denial, else with the fewest tokens left.

    Of buckets that are equal in this the one that is full latest binds, then the first.

    Args:
        requests: What was asked, at least one.
        verdict: What the storage answered.

    Returns:
        The position in `requests`.
    """
    best = 0
    best_wait_us: i64 = -1
    best_tokens: i64 = -1
    best_full_in_us: i64 = -1
    for at, request in enumerate(requests):
        spec = request.spec
        bucket_level = verdict.levels[at]
        level = bucket_level.level
        effective_in_us = bucket_level.effective_in_us
        wait: i64 = 0
        if not verdict.allowed and level < request.cost_units:
            wait = wait_us(spec, request.cost_units, level, effective_in_us)
        tokens = level // spec.units_per_token
        full_in_us = effective_in_us - (level - spec.capacity) // spec.units_per_tick * spec.tick_us
        if at == 0 or (
            wait > best_wait_us
            or (
                wait == best_wait_us
                and (tokens < best_tokens or (tokens == best_tokens and full_in_us > best_full_in_us))
            )
        ):
            best, best_wait_us, best_tokens, best_full_in_us = at, wait, tokens, full_in_us
    return best


def result_at(requests: tuple[BucketRequest, ...], verdict: Verdict, at: int) -> RateLimitResult:
    """Derive the client's answer from one of the buckets: the one that binds, which is the first of one."""
    request, level = requests[at], verdict.levels[at]
    return result(request.spec, request.cost_units, level.level, level.effective_in_us, verdict.allowed)


def full(limit: int) -> RateLimitResult:
    """Answer where nothing counts: allowed, and everything is left.

    Args:
        limit: The capacity.
    """
    return RateLimitResult(allowed=True, retry_after=0.0, remaining=limit, limit=limit, reset_seconds=0)


def impossible(limit: int) -> RateLimitResult:
    """Answer a cost above the capacity: denied, nothing consumed, and no wait would help.

    Args:
        limit: The capacity that was exceeded.
    """
    return RateLimitResult(allowed=False, retry_after=inf, remaining=0, limit=limit, reset_seconds=0)
