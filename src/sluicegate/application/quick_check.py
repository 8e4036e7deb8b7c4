"""The short ways of a check: plain arguments, and a storage that answers at once, always or while it knows of a denial.

They ask the same functions as the long way (`CheckFlow`), with no objects in between. Whatever is not plain, a wrong argument
and a failure included, is left to the long way.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias, cast

from sluicegate.application.checking import Check
from sluicegate.application.exemptions import listed_scopes
from sluicegate.domain.bucket_key import CERTAINLY_SHORT, KeyFormat
from sluicegate.domain.bucket_table import TakeOne
from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.events import RateLimitCheckAllowed, RateLimitCheckAttempted, RateLimitEvent
from sluicegate.domain.protocols import Identifier, SyncStorageProtocol
from sluicegate.domain.result import Success
from sluicegate.domain.rule_set import Meter, Plan, RuleSet
from sluicegate.domain.token_bucket import BucketShape, Demand, Verdict, result_at, tightest

QuickCheck: TypeAlias = Callable[[str, Identifier, int], Success[RateLimitResult] | None]
"""Endpoint, identifier and cost in; the answer, or None where the long way must be gone."""

MAX_REMEMBERED = 32_768
"""Most demands that are remembered, of all endpoints together: some eight megabytes."""

_ONE_IN = 8
"""Of so many checks that are not remembered one will be: who asks often is soon, and a crowd that asks once costs little."""


class QuickStorage(SyncStorageProtocol, Protocol):
    """A storage that answers at once.

    Args:
        take_one_now: Does what `take_now` does for one bucket, with no objects in between.
    """

    take_one_now: TakeOne


class HereStorage(Protocol):
    """A storage that decides some checks without asking anybody; see `StorageProtocol`.

    Args:
        spend_one: Pays one demand from a loan: key, shape and cost in units in; verdict, level and lead out, or None.
        recall_one: The denial of one demand, if it is known to be true still.
    """

    spend_one: Callable[[str, BucketShape, int], tuple[bool, int, int] | None]
    recall_one: Callable[[Demand], tuple[bool, int, int] | None]

    def decide_here(self, demands: Sequence[Demand], /) -> Verdict | None:
        """Do it for any demands."""
        ...


class PlainChecks:
    """What plain checks ask for: always the same for a client, and naming its buckets takes longer than paying.

    Endpoints with rules in shadow mode are left out. Where there are lists or overrides, only identifiers that the long way
    found to be in none of them are plain.

    Args:
        rules: The rules in force.
        key_format: How buckets are named.
    """

    def __init__(self, rules: RuleSet, key_format: KeyFormat) -> None:
        self._plans = {plan.endpoint: plan for plan in rules.plans if plan.meters and not plan.shadows}
        self._unknown = {endpoint: _unknown(rules, plan) for endpoint, plan in self._plans.items()}
        self._encode = key_format.encode
        self._remembered: dict[str, dict[str, Check]] = {endpoint: {} for endpoint in self._plans}
        self._room = MAX_REMEMBERED
        self._unremembered = 0
        self.finders = {endpoint: known.get for endpoint, known in self._remembered.items()}
        """By the endpoint: returns the check of an identifier, if it is remembered."""
        self.only_rules = {
            endpoint: plan.meters[0].rule for endpoint, plan in self._plans.items() if len(plan.meters) == 1
        }
        """By the endpoint: the rule of a plain check that asks only one."""

    def of(self, endpoint: str, identifier: str) -> Check | None:
        """Work out what is asked for, and remember it now and then; None if the identifier is not plain."""
        if not 0 < len(identifier) <= CERTAINLY_SHORT:
            return None
        plan = self._plans[endpoint]
        for unknown in self._unknown[endpoint]:
            if identifier not in unknown:
                return None
        name = self._encode(identifier)
        demands: tuple[Demand, ...]
        if len(plan.meters) == 1:
            demands = (_demand(plan.meters[0], name),)
        else:
            demands = tuple([_demand(meter, name) for meter in plan.meters])
        check = Check(plan, demands, 0)
        self._unremembered = self._unremembered + 1 & _ONE_IN - 1
        if not self._unremembered:
            self._room -= len(demands)
            if self._room < 0:
                self._room = MAX_REMEMBERED - len(demands)
                for known in self._remembered.values():
                    known.clear()
            self._remembered[endpoint][identifier] = check
        return check

    def __len__(self) -> int:
        return sum(len(known) * len(self._plans[endpoint].meters) for endpoint, known in self._remembered.items())


def nothing_plain(_endpoint: str) -> None:
    """Know of no check."""


def no_quick_check(_endpoint: str, _identifier: Identifier, _cost: int) -> None:
    """Leave every check to the long way."""


def short_way_to(storage: object) -> Callable[[PlainChecks], QuickCheck] | None:
    """Return what builds the short way to a storage; None if it has none."""
    if getattr(storage, "immediate", False) and hasattr(storage, "take_one_now"):
        return partial(build_quick_check, storage=cast("QuickStorage", storage))
    if hasattr(storage, "decide_here"):
        return partial(build_here_check, storage=cast("HereStorage", storage))
    return None


def build_quick_check(plain: PlainChecks, storage: QuickStorage) -> QuickCheck:
    """Build the short way to a storage that answers at once.

    Args:
        plain: What is asked for.
        storage: Where the buckets are.
    """
    # A closure: its variables are found faster than a method's attributes, and this is run for every check.
    finder_of, check_of = plain.finders.get, plain.of
    take_one, take_all = storage.take_one_now, storage.take_now
    no_cost = 0

    def quick_check(endpoint: str, identifier: Identifier, cost: int) -> Success[RateLimitResult] | None:
        # By identity: 0 is one object, and False and 0.0 are others, which the long way refuses.
        if cost is not no_cost or type(identifier) is not str:
            return None
        find = finder_of(endpoint)
        if find is None:
            return None
        check = find(identifier) or check_of(endpoint, identifier)
        if check is None:
            return None
        demands = check.demands
        if len(demands) == 1:
            demand = demands[0]
            shape, cost_units = demand.shape, demand.cost_units
            allowed, level, lead_us = take_one(demand.key, shape, cost_units)
            return Success(result_at(shape, cost_units, level, lead_us, allowed))
        return Success(tightest(demands, take_all(demands)))

    return quick_check


def build_here_check(plain: PlainChecks, storage: HereStorage) -> QuickCheck:
    """Build the short way to what a storage can decide without waiting: from a loan, or by a denial that it knows of.

    Args:
        plain: What is asked for.
        storage: The storage.
    """
    finder_of, check_of = plain.finders.get, plain.of
    spend_one, recall_one, decide_all = storage.spend_one, storage.recall_one, storage.decide_here
    no_cost = 0

    def here_check(endpoint: str, identifier: Identifier, cost: int) -> Success[RateLimitResult] | None:
        if cost is not no_cost or type(identifier) is not str:
            return None
        find = finder_of(endpoint)
        if find is None:
            return None
        check = find(identifier) or check_of(endpoint, identifier)
        if check is None:
            return None
        demands = check.demands
        if len(demands) == 1:
            demand = demands[0]
            shape, cost_units = demand.shape, demand.cost_units
            decided = spend_one(demand.key, shape, cost_units) if demand.lease_units else None
            if decided is None:
                decided = recall_one(demand)
                if decided is None:
                    return None
            allowed, level, lead_us = decided
            return Success(result_at(shape, cost_units, level, lead_us, allowed))
        verdict = decide_all(demands)
        return None if verdict is None else Success(tightest(demands, verdict))

    return here_check


def listened_to(
    quick_check: QuickCheck,
    wants: Callable[[type[RateLimitEvent]], bool],
    now_us: Callable[[], int],
    denied: Callable[[str, Identifier, RateLimitResult, int], None],
) -> QuickCheck:
    """Return the short way where there is a bus: whoever wants more than the denials needs the long one.

    Args:
        quick_check: The short way without a bus.
        wants: Whether anybody listens to a type of event.
        now_us: What measures execution times.
        denied: Tells of a denial: endpoint, identifier, result, and when the check began.
    """

    def check_for_listeners(endpoint: str, identifier: Identifier, cost: int) -> Success[RateLimitResult] | None:
        if wants(RateLimitCheckAllowed) or wants(RateLimitCheckAttempted):
            return None
        started_us = now_us()
        answer = quick_check(endpoint, identifier, cost)
        if answer is not None and not answer.value.allowed:
            denied(endpoint, identifier, answer.value, started_us)
        return answer

    return check_for_listeners


def _demand(meter: Meter, name: str) -> Demand:
    after = meter.after
    return Demand(
        meter.before if after is None else meter.before + name + after, meter.shape, meter.cost_units, meter.lease_units
    )


def _unknown(rules: RuleSet, plan: Plan) -> tuple[set[str], ...]:
    """Return the sets that an identifier must be in to be known to be in no list and no override; they grow meanwhile."""
    scopes = listed_scopes(rules.lists, plan) if rules.lists else ()
    indexes = [rules.lists.get(scope) for scope in scopes] + [meter.overrides for meter in plan.meters]
    return tuple(index.unknown for index in indexes if index is not None)
