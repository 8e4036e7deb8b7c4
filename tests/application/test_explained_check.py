"""Why a check is answered as it is: rules, buckets, lists, switches, and a storage that does not tell."""

import math
from typing import Any

import pytest

from sluicegate import InvalidInputError, SyncTokenBucketAdapter
from sluicegate.application.explained_check import ExplainedCheck
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.testing import FailingStorage
from support.world import World

RULES = """
[policies]
login = "2/minute"
daily = "3/day per user"

[endpoints]
"POST /login" = ["login", "daily"]
"GET /a" = { rate = "1/minute", enabled = false }

[deny]
ip = ["192.0.2.66"]
"""
ANN = {"ip": "192.0.2.1", "user": "ann"}


async def explain(world: World, endpoint: str = "POST /login", identifier: Any = ANN, cost: int = 0) -> ExplainedCheck:
    """Ask the limiter, and see that asking changes nothing: it answers the same again."""
    told = await world.limiter.explain(endpoint=endpoint, identifier=identifier, cost=cost)
    assert await world.limiter.explain(endpoint=endpoint, identifier=identifier, cost=cost) == told
    return told


async def test_it_names_the_rule_that_denies_and_what_is_left_in_each_bucket() -> None:
    """As a check would answer at this moment."""
    world = World(RULES)
    told = await explain(world)
    assert (told.allowed, told.denied_by, list(told.tokens_left.values())) == (True, (), [2, 3])
    assert await world.passed(3, "POST /login", ANN) == 2
    told = await explain(world)
    assert (told.allowed, told.retry_after, told.denied_by) == (False, 30.0, ("login",))
    assert [told.tokens_left[rule.key] for rule in told.explanation.rules] == [0, 1]
    assert [rule.policy for rule in told.explanation.rules] == ["login", "daily"]


async def test_a_cost_that_never_fits_is_denied_for_good() -> None:
    """No bucket is asked."""
    told = await explain(World(RULES), cost=9)
    assert (told.allowed, told.retry_after, told.denied_by) == (False, math.inf, ("login", "daily"))
    assert (told.explanation.outcome, told.tokens_left) == ("impossible", {})


async def test_lists_and_rules_that_are_off_need_no_bucket() -> None:
    """The explanation says why."""
    world = World(RULES)
    told = await explain(world, identifier={"ip": "192.0.2.66", "user": "ann"})
    assert (told.allowed, told.explanation.outcome) == (False, "denied")
    assert "the deny list has ip 192.0.2.66" in told.explanation.why
    assert (await explain(world, "GET /a", "192.0.2.1")).allowed
    assert (await explain(world, "GET /nowhere", "192.0.2.1")).explanation.outcome == "no_rule"
    world.limiter.rules.switch_off(reason="incident 7")
    assert "incident 7" in (await explain(world)).explanation.why


async def test_rules_beside_code_are_explained() -> None:
    """Those that a decorator or a dependency names."""
    world = World(RULES)
    world.limiter.rules.add_beside_code("GET /report", (RateLimitRule.per_minute(7),))
    told = await explain(world, "GET /report", "192.0.2.1")
    (rule,) = told.explanation.rules
    assert (rule.max_tokens, rule.why) == (7, ("it stands beside the code of the endpoint",))
    assert (told.explanation.matched, told.tokens_left) == ("GET /report", {rule.key: 7})


async def test_a_storage_that_does_not_answer_is_said() -> None:
    """The rules are explained all the same."""
    told = await explain(World(RULES, storage=FailingStorage()))
    assert (told.allowed, told.retry_after, told.storage_fault) == (None, None, "connection")
    assert len(told.explanation.rules) == 2


async def test_wrong_arguments_are_named() -> None:
    """As in a check."""
    with pytest.raises(InvalidInputError, match="endpoint"):
        await World(RULES).limiter.explain(endpoint="", identifier="x")
    with pytest.raises(InvalidInputError, match="user"):
        await World(RULES).limiter.explain(endpoint="POST /login", identifier={"ip": "192.0.2.1"})


def test_the_limiter_without_an_event_loop_explains_too() -> None:
    """The same."""
    world = World(RULES)
    limiter = SyncTokenBucketAdapter(storage=world.storage, rules=world.limiter.rules)
    for _ in range(3):
        limiter.is_allowed(endpoint="POST /login", identifier=ANN)
    told = limiter.explain(endpoint="POST /login", identifier=ANN)
    assert (told.allowed, told.denied_by) == (False, ("login",))
