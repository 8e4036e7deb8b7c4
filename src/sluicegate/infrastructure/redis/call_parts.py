"""A call whose buckets lie in several slots of a Cluster: its parts, and one answer of theirs."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest, Verdict
from sluicegate.domain.claims.claim import PAID
from sluicegate.infrastructure.redis.calls import EXTEND, REFUND, RESERVE, RESET, SETTLE, TAKE, Call, ClaimCall, Waiter


def part_of(call: Call, part: Sequence[int], future: Waiter) -> Call:
    """Return the call of some of a call's requests.

    Args:
        call: Not a `LEND`, which has one request.
        part: The requests' positions.
        future: Gets the answer.
    """
    terms = call.terms
    if isinstance(terms, ClaimCall):
        width = len(terms.numbers) // len(call.requests)
        terms = ClaimCall(
            terms.number, tuple([number for i in part for number in terms.numbers[i * width : (i + 1) * width]])
        )
    return Call(call.verb, [call.requests[i] for i in part], future, call.due_s, terms)


def joined(call: Call, parts: Sequence[Sequence[int]], answers: Sequence[Any], undone: Sequence[object]) -> object:
    """Return the answer to a call, made of those to its parts.

    Args:
        call: The call.
        parts: The positions of each part's requests.
        answers: The parts' answers; none is an error.
        undone: The parts that are paid back, because another one was denied.
    """
    if call.verb == RESET:
        return None
    if call.verb == EXTEND:
        return sum(answers)
    each: list[Any] = [None] * len(call.requests)
    for part, answer in zip(parts, answers, strict=True):
        values = answer.levels if isinstance(answer, Verdict) else answer
        for i, value in zip(part, values, strict=True):
            each[i] = _paid_back(call.requests[i], value) if part in undone else value
    if call.verb not in {TAKE, RESERVE}:
        return tuple(each)
    return Verdict(all(answer.allowed for answer in answers), tuple(each), any(answer.may_rise for answer in answers))


def undoing(
    call: Call, part: Sequence[int], new_future: Callable[[], "asyncio.Future[Any]"], due_s: float
) -> list[Call]:
    """Return the calls that pay back a part of a check or a reservation.

    Args:
        call: The check or the reservation.
        part: The part's positions.
        new_future: Makes the future of a call.
        due_s: When they must be answered.
    """
    terms = call.terms
    claimed = [i for i in part if isinstance(terms, ClaimCall) and terms.numbers[2 * i] != PAID]
    calls: list[Call] = []
    if claimed and isinstance(terms, ClaimCall):
        nothing = [call.requests[i].with_cost(0) for i in claimed]
        calls.append(Call(SETTLE, nothing, new_future(), due_s, ClaimCall(terms.number, (0,) * len(claimed))))
    paid = [call.requests[i] for i in part if i not in claimed]
    if paid:
        calls.append(Call(REFUND, paid, new_future(), due_s))
    return calls


def _paid_back(request: BucketRequest, level: BucketLevel) -> BucketLevel:
    return BucketLevel(min(request.spec.capacity, level.level + request.cost_units), level.effective_in_us)
