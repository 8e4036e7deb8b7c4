"""The arithmetic of `token_bucket.py` a second time, in one piece for each hot way of a check.

Each is a closure that calls nothing that it need not, for ticks of a microsecond and a clock that does not step back; all else
goes the other way. Property tests hold each to the answers and states of the plain functions that it names.
"""

from collections.abc import Callable
from math import inf

from sluicegate.domain.bucket_at_hand import Bucket, DenialsAtHand, LoansAtHand, QuickTake, Timekeeping
from sluicegate.domain.bucket_spec import BucketSpec
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.result import Success
from sluicegate.domain.token_bucket import result_at, slack

_SECOND_US = 1_000_000


def build_take(
    spec: BucketSpec,
    cost_units: int,
    find: Callable[[str], Bucket | None],
    otherwise: QuickTake,
    time: Timekeeping,
) -> QuickTake:
    """Build a check of one bucket that is at hand: `refill`, the payment and `result_at` in one piece.

    Args:
        spec: The buckets' arithmetic, in ticks of a microsecond.
        cost_units: What each is asked for.
        find: Returns the bucket of an identifier if it is at hand.
        otherwise: Checks where it is not, or has left its table, or the clock stepped back.
        time: When to read and write.
    """
    capacity, units_per_token, units_per_tick = spec.capacity, spec.units_per_token, spec.units_per_tick
    max_tokens, units_per_second = spec.max_tokens, spec.units_per_second
    rounding_up = capacity + units_per_second - 1
    take, give, wait, read, per_us = time.turn.take, time.turn.give, time.turn.wait, time.read, time.per_us

    def quick_take(identifier: str) -> Success[RateLimitResult] | None:
        bucket = find(identifier)
        if bucket is None:
            return otherwise(identifier)
        try:
            take()
        except IndexError:
            wait()
        except BaseException:  # a signal's handler, just after
            give(None)
            raise
        try:
            now_us = read() // per_us
            elapsed = now_us - bucket.last
            level = left = -1
            if elapsed >= 0:
                level = bucket.level + elapsed * units_per_tick
                if level > capacity:  # noqa: PLR1730 - min() costs more than all of this arithmetic
                    level = capacity
                left = level - cost_units
                if left >= 0:
                    bucket.last = now_us
                    bucket.level = left
        finally:
            give(None)
        if left >= 0:
            reset_seconds = (rounding_up - left) // units_per_second
            return Success(RateLimitResult(True, 0.0, left // units_per_token, max_tokens, reset_seconds))  # noqa: FBT003
        if level < 0:
            return otherwise(identifier)
        return Success(result_at(spec, cost_units, level, 0, allowed=False))

    return quick_take


def build_take_all(  # noqa: C901, PLR0915 - one piece, as `build_take`
    find: Callable[[str], tuple[Bucket, ...] | None], otherwise: QuickTake, time: Timekeeping
) -> QuickTake:
    """Build a check of several buckets that are at hand: `refill` for each, the payment of all, and `tightest`.

    As `build_take`, but that denials go the other way as well.

    Args:
        find: Returns the buckets of an identifier, at least two, if they are at hand.
        otherwise: Checks where they are not, and so on.
        time: When to read and write.
    """
    take, give, wait, read, per_us = time.turn.take, time.turn.give, time.turn.wait, time.read, time.per_us

    def quick_take(identifier: str) -> Success[RateLimitResult] | None:  # noqa: C901, PLR0912
        buckets = find(identifier)
        if buckets is None:
            return otherwise(identifier)
        try:
            take()
        except IndexError:
            wait()
        except BaseException:
            give(None)
            raise
        try:
            now_us = read() // per_us
            paid, lefts, last, elapsed = False, None, -1, 0
            binding, least = buckets[0], 0
            fewest = next_to_fewest = inf
            for bucket in buckets:
                if bucket.last is not last:  # mostly it is: they are paid together
                    last = bucket.last
                    elapsed = now_us - last
                    if elapsed < 0:
                        break
                left = bucket.level + elapsed * bucket.units_per_tick
                if left > bucket.capacity:  # noqa: PLR1730 - as above
                    left = bucket.capacity
                bucket.left = left = left - bucket.cost_units
                # Below 2**53 a quotient in doubles never reaches a whole number that the exact one does not.
                tokens = left / bucket.units_per_token
                if tokens < fewest:
                    if left < 0:
                        break
                    next_to_fewest = fewest
                    fewest = tokens
                    least = left
                    binding = bucket
                elif tokens < next_to_fewest:
                    next_to_fewest = tokens
            else:
                paid = True
                for bucket in buckets:
                    bucket.level = bucket.left
                    bucket.last = now_us
                if next_to_fewest - fewest < 1.0:  # as many whole tokens may be left in both
                    lefts = [bucket.left for bucket in buckets]
        finally:
            give(None)
        if not paid:
            return otherwise(identifier)
        if lefts is not None:
            pairs = zip(buckets, lefts, strict=True)
            results = [result_at(one.spec, one.cost_units, left, 0, allowed=True) for one, left in pairs]
            return Success(min(results, key=slack))
        spec = binding.spec
        remaining = least // spec.units_per_token
        reset_seconds = (binding.rounding_up - least) // spec.units_per_second
        return Success(RateLimitResult(True, 0.0, remaining, spec.max_tokens, reset_seconds))  # noqa: FBT003

    return quick_take


def build_recall(
    spec: BucketSpec,
    cost_units: int,
    key_of: Callable[[str], str | None],
    denials: DenialsAtHand,
    otherwise: QuickTake,
) -> QuickTake:
    """Build a check of one bucket that was denied a while ago: `refill` and `result_at` in one piece; see `build_take`.

    Args:
        spec: The buckets' arithmetic, in ticks of a microsecond.
        cost_units: What each is asked for.
        key_of: Returns the key of an identifier if it is at hand.
        denials: What is known of denials.
        otherwise: Checks where nothing is, or it is over, or it was of more than this or under another rule.
    """
    units_per_token, units_per_tick, max_tokens = spec.units_per_token, spec.units_per_tick, spec.max_tokens
    rounding_up, units_per_second = spec.capacity + spec.units_per_second - 1, spec.units_per_second
    find, read, per_us = denials.find, denials.read, denials.per_us

    def quick_recall(identifier: str) -> Success[RateLimitResult] | None:
        key = key_of(identifier)
        if key is None:
            return otherwise(identifier)
        denial = find(key)
        if denial is None or denial.spec is not spec or cost_units < denial.cost_units:
            return otherwise(identifier)
        now_us = read() // per_us
        elapsed = now_us - denial.held_us
        if elapsed < 0 or now_us >= denial.until_us:
            return otherwise(identifier)
        level = denial.level + elapsed * units_per_tick  # short of the cost until then, and so of the capacity
        retry_after = -((level - cost_units) // units_per_tick) / _SECOND_US
        reset_seconds = (rounding_up - level) // units_per_second
        return Success(RateLimitResult(False, retry_after, level // units_per_token, max_tokens, reset_seconds))  # noqa: FBT003

    return quick_recall


def build_spend(
    spec: BucketSpec, cost_units: int, key_of: Callable[[str], str | None], loans: LoansAtHand, otherwise: QuickTake
) -> QuickTake:
    """Build a check of one bucket that is paid from a loan: the payment and `result_at` in one piece; see `build_take`.

    What has flowed into the bucket since its level was seen is left out of the answer.

    Args:
        spec: The buckets' arithmetic, in ticks of a microsecond.
        cost_units: What each is asked for.
        key_of: Returns the key of an identifier if it is at hand.
        loans: What is lent.
        otherwise: Checks where nothing is, or too little. A loan that has ended or is to be renewed is for the long way.
    """
    capacity, units_per_token, max_tokens = spec.capacity, spec.units_per_token, spec.max_tokens
    rounding_up, units_per_second = spec.capacity + spec.units_per_second - 1, spec.units_per_second
    find, read = loans.find, loans.read_ns
    take, give, wait = loans.turn.take, loans.turn.give, loans.turn.wait

    def quick_spend(identifier: str) -> Success[RateLimitResult] | None:
        key = key_of(identifier)
        if key is None:
            return otherwise(identifier)
        loan = find(key)
        if loan is None or loan.spec is not spec:
            return otherwise(identifier)
        try:
            take()
        except IndexError:
            wait()
        except BaseException:  # a signal's handler, just after
            give(None)
            raise
        try:
            left = loan.units - cost_units
            paid = left >= loan.low and read() < loan.until_ns
            if paid:
                loan.units = left
        finally:
            give(None)
        if not paid:  # a loan that suffices comes before a denial that was true without it
            return otherwise(identifier) if left < 0 else None
        level = loan.level + left
        if level > capacity:  # noqa: PLR1730 - as in `build_take`
            level = capacity
        reset_seconds = (rounding_up - level) // units_per_second
        return Success(RateLimitResult(True, 0.0, level // units_per_token, max_tokens, reset_seconds))  # noqa: FBT003

    return quick_spend
