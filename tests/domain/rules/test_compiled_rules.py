"""Which rules hold for an endpoint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import (
    InvalidInputError,
    InvalidTypeError,
    Listing,
    MemoryStorage,
    Override,
    RateLimitRule,
    RuleBook,
    RuleGroup,
    SyncTokenBucketAdapter,
)
from sluicegate.application.check import requests_for
from sluicegate.application.rules.lists_and_overrides import with_overrides
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.runtime.system_clock import utc_now
from sluicegate.testing import FakeClock

RULE = RateLimitRule.per_minute(5)


def test_several_rules_of_one_scope_have_keys_of_their_own() -> None:
    """The first rule of a scope has the plain key; others carry their name or number."""
    rules = (
        RULE,
        RateLimitRule.per_hour(50),
        RateLimitRule(9, 9, "ip", name="daily"),
        RateLimitRule.per_day(9, scope="user"),
    )
    endpoint_rules = CompiledRules({"GET /": rules}, KeyFormat()).find("GET /")
    assert endpoint_rules is not None
    frames = [(limit.before, limit.after) for limit in endpoint_rules.limits]
    assert frames == [
        ("rate_limit:ip:", ":GET /"),
        ("rate_limit:ip~#2:", ":GET /"),
        ("rate_limit:ip~daily:", ":GET /"),
        ("rate_limit:user:", ":GET /"),
    ]
    assert endpoint_rules.max_cost == 5


def test_a_name_that_is_a_number_is_no_number() -> None:
    """The second rule of a scope, and one that is named `2`, count apart: 5 of 900 pass, as the second rule says."""
    rules = (RateLimitRule.per_second(1000), RateLimitRule(5, 5, "ip"), RateLimitRule(1000, 100, "ip", name="2"))
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(clock=FakeClock()), rules={"GET /": rules})
    passed = [limiter.is_allowed(endpoint="GET /", identifier="10.0.0.1").value.allowed for _ in range(900)]
    assert sum(passed) == 5


NAMES = st.sampled_from(["", "", "1", "2", "3", "ip", "a.b", "GET/", "*", "/"])
SCOPES = st.sampled_from(["ip", "user", "global", "user_provider", "ip_2", "i"])
RULES = st.builds(
    lambda tokens, scope, name, shadow: RateLimitRule(tokens, 5, scope, name=name, shadow=shadow),
    st.integers(1, 9),
    SCOPES,
    NAMES,
    st.booleans(),
)


@given(
    own=st.lists(RULES, min_size=1, max_size=5),
    grouped=st.lists(st.lists(RULES, min_size=1, max_size=4), max_size=3),
    identifier=st.text(min_size=1, max_size=4) | st.sampled_from(["2:GET /", "g0", "~2", "#2:x"]),
    hash_tag=st.booleans(),
)
def test_different_rules_of_an_endpoint_never_share_a_key(
    own: list[RateLimitRule], grouped: list[list[RateLimitRule]], identifier: str, hash_tag: bool
) -> None:
    """Whatever their names, scopes and groups: a check asks different buckets, or the rules are refused with a sentence."""
    key_format = KeyFormat(hash_tag=hash_tag)
    try:
        book = RuleBook(
            {"GET /": own},
            groups=[RuleGroup(name=f"g{at}", rules=tuple(one), endpoints=("GET /",)) for at, one in enumerate(grouped)],
        )
        compiled = CompiledRules(book, key_format)
    except InvalidInputError as error:
        assert "two rules are named" in str(error)  # noqa: PT017 - the other outcome is below
        return
    rules = compiled.find("GET /")
    assert rules is not None
    limits = (*rules.limits, *rules.shadows)
    keys = [request.key for request in requests_for(limits, key_format, identifier, 0)]
    assert len(set(keys)) == len(own) + sum(map(len, grouped))


def test_the_rule_of_an_override_has_the_key_of_the_rule_that_it_replaces() -> None:
    """Of one identifier only one of the two counts, and no third rule has this key."""
    rules = (RULE, RateLimitRule(5, 5, "user", name="2"), RateLimitRule(6, 6, "user"), RateLimitRule(7, 7, "user"))
    override = Override(policy="2", identifier="alice", rule=RateLimitRule(50, 5, "user"))
    compiled = CompiledRules(RuleBook({"GET /": rules}, overrides=[override]), KeyFormat())
    found = compiled.find("GET /")
    assert found is not None
    replaced = with_overrides(found, "alice", utc_now)
    assert [limit.max_tokens for limit in replaced.limits] == [5, 50, 6, 7]
    keys = [request.key for request in requests_for(replaced.limits, KeyFormat(), "alice", 0)]
    assert keys == [
        "rate_limit:ip:alice:GET /",
        "rate_limit:user:alice:GET /",
        "rate_limit:user~#2:alice:GET /",
        "rate_limit:user~#3:alice:GET /",
    ]


def test_disabled_rules_are_left_out() -> None:
    """A plan asks the rules that are enabled; if none is, its answer is full."""
    off = RateLimitRule(7, 7, "ip", enabled=False)
    plans = CompiledRules({"GET /a": (off, RULE), "GET /b": off}, KeyFormat())
    some, none = plans.find("GET /a"), plans.find("GET /b")
    assert some is not None
    assert [limit.rule for limit in some.limits] == [RULE]
    assert none is not None
    assert none.disabled is not None
    assert (none.disabled.remaining, none.disabled.limit) == (7, 7)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"": RULE}, "endpoint='': expected a string that is not empty"),
        ({5: RULE}, "endpoint=5: expected a string, not int"),
        ({"GET /": ()}, "rules['GET /']: expected at least one rule"),
        ({"GET /": "often"}, "rules['GET /']='often': no policy of the rules file has this name, and it is no rate"),
        ({"GET /": "5/minute;"}, "rules['GET /']: rate='': expected a rate"),
        ({"GET /": "5/fortnight"}, "rules['GET /']: rate='5/fortnight'"),
        ({"GET /": (RULE, 5)}, "rules['GET /']: expected a RateLimitRule or a text such as '5/minute', not 5"),
        ({"GET /": None}, "rules['GET /']=None: expected a RateLimitRule, a text or several of them"),
        ([RULE], "expected a mapping from endpoint to rule"),
    ],
)
def test_wrong_rules_are_named(rules: object, message: str) -> None:
    """The error names the endpoint and what stands there."""
    with pytest.raises(InvalidInputError) as caught:
        CompiledRules(rules, KeyFormat())  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_two_rules_of_one_name_are_refused() -> None:
    """Names tell rules apart, in keys and for clients."""
    with pytest.raises(InvalidInputError, match="two rules are named 'a'"):
        CompiledRules(
            {"GET /": (RateLimitRule(5, 5, "ip", name="a"), RateLimitRule(6, 6, "ip", name="a"))}, KeyFormat()
        )
    with pytest.raises(InvalidTypeError):
        CompiledRules({"GET /": b"x"}, KeyFormat())  # type: ignore[dict-item]


def test_with_lists_a_path_that_no_rule_fits_is_asked_about_all_the_same() -> None:
    """A denied client is denied everywhere: what no template fits belongs to `*`, as it does where `*` has a rule."""
    rules = {"GET /items": RateLimitRule.per_minute(5)}
    key_format = KeyFormat("rate_limit")
    denied = CompiledRules(RuleBook(rules, deny=[Listing(scope="ip", identifier="192.0.2.0/24")]), key_format)
    assert denied.match("GET", "/elsewhere") == "*"
    assert denied.match("GET", "/items") == "GET /items"
    assert CompiledRules(rules, key_format).match("GET", "/elsewhere") is None
    assert CompiledRules({**rules, "*": RateLimitRule.per_minute(5)}, key_format).match("GET", "/elsewhere") == "*"


def test_an_override_may_be_smaller_than_its_rules_lease() -> None:
    """Who has a smaller bucket is lent less at a time, up to all of it."""
    rule = RateLimitRule(100, 60, "ip", name="search", lease=50)
    override = Override(policy="search", identifier="192.0.2.1", rule=RateLimitRule(10, 10, "ip"))
    endpoint_rules = CompiledRules(RuleBook({"GET /": rule}, overrides=[override]), KeyFormat("rate_limit")).find(
        "GET /"
    )
    assert endpoint_rules is not None
    assert endpoint_rules.limits[0].lease_units == 50 * rule.spec.units_per_token
    assert endpoint_rules.limits[0].overrides is not None
    found = endpoint_rules.limits[0].overrides.find("192.0.2.1", lambda: None)  # type: ignore[arg-type, return-value]
    assert found is not None
    assert found.limit is not None
    assert found.limit.lease_units == 10 * found.limit.spec.units_per_token


def test_a_lease_without_a_size_is_a_quarter_of_the_capacity() -> None:
    """But a token at least; without a lease nothing is lent."""
    for capacity, lease, tokens in ((100, True, 25), (3, True, 1), (100, 7, 7), (100, False, 0)):
        rule = RateLimitRule(capacity, 60, "ip", lease=lease)
        endpoint_rules = CompiledRules({"GET /": rule}, KeyFormat("rate_limit")).find("GET /")
        assert endpoint_rules is not None
        assert endpoint_rules.limits[0].lease_units == tokens * rule.spec.units_per_token
