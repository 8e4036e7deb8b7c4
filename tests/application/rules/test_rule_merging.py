"""Rules from code and rules from a file, made one."""

import pytest

from sluicegate import InvalidInputError, MemoryStorage, RateLimitRule, SyncTokenBucketAdapter
from sluicegate.application.rules.rule_merging import RuleRegistry, merge_rules
from sluicegate.infrastructure.rules_file.reader import parse_rules

FILE = parse_rules(
    """
    unmatched = "600/minute"
    [policies]
    login = "5/minute"
    spare = { rate = "7/minute per user", overrides = [{ id = "partner", rate = "70/minute" }] }
    [endpoints]
    "POST /sessions" = "login"
    "GET /ours" = { rules = "9/minute", replaces_code = true }
    "GET /same" = "3/minute"
    [groups.g]
    rules = "100/minute per global"
    endpoints = ["GET /code", "GET /same"]
    [deny]
    ip = ["10.6.6.6"]
    """
)
OURS = {"GET /ours": "1/minute"}


def test_each_endpoint_gets_its_rules_from_who_names_it() -> None:
    """Code alone, file alone, both agreeing, and the file replacing the code on purpose."""
    three = RateLimitRule(3, 3, "ip")
    book = merge_rules({"GET /code": ("2/minute", "spare"), "GET /same": three, **OURS}, FILE)
    assert {endpoint: [rule.max_tokens for rule in rules] for endpoint, rules in book.items()} == {
        "GET /code": [2, 7, 100],
        "GET /same": [3, 100],
        "GET /ours": [9],
        "POST /sessions": [5],
        "*": [600],
    }


def test_what_the_file_says_of_everybody_holds_for_code_as_well() -> None:
    """Overrides of a policy that only code uses, lists, groups and the rule of unmatched endpoints."""
    limiter = SyncTokenBucketAdapter(storage=MemoryStorage(), rules=merge_rules({"GET /code": "spare", **OURS}, FILE))
    names = {"user": "partner", "ip": "10.0.0.1"}
    assert limiter.is_allowed(endpoint="GET /code", identifier=names).value.remaining == 69
    assert not limiter.is_allowed(endpoint="GET /code", identifier={**names, "ip": "10.6.6.6"}).value.allowed
    assert limiter.is_allowed(endpoint="GET /nowhere", identifier="10.0.0.1").value.limit == 600


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            {"POST /sessions": "6/minute", **OURS},
            (
                "endpoints.'POST /sessions': the rules file says login and the code says ip-6-60s;"
                " remove one of them, or write replaces_code = true in the file"
            ),
        ),
        ({}, "endpoints.'GET /ours': replaces_code = true, but no code declares it"),
        (
            {"GET /x": "logn", **OURS},
            "rules['GET /x']='logn': no policy of the rules file has this name, and it is no rate",
        ),
        ({"GET /x": (), **OURS}, "rules['GET /x']: expected at least one rule"),
        ({"GET /x": (5,), **OURS}, "rules['GET /x']: expected a RateLimitRule or a text such as '5/minute', not 5"),
    ],
)
def test_a_contradiction_is_an_error(code: dict[str, object], message: str) -> None:
    """The message names the endpoint and both sides."""
    with pytest.raises(InvalidInputError) as refused:
        merge_rules(code, FILE)  # type: ignore[arg-type]
    assert str(refused.value) == message


def test_without_a_file() -> None:
    """An empty mapping is a file that says nothing."""
    assert merge_rules({"a": "5/minute"}, {}) == {"a": (RateLimitRule(5, 5, "ip"),)}


def test_a_registry_collects_what_stands_beside_routes() -> None:
    """The same declaration twice is harmless; another one is an error; each registry is by itself."""
    registry = RuleRegistry()
    registry.add("POST /sessions", "login")
    registry.add("GET /x", RateLimitRule.per_minute(5), "9/hour per global")
    registry.add("POST /sessions", "login")
    assert dict(registry.rules) == {
        "POST /sessions": ("login",),
        "GET /x": (RateLimitRule.per_minute(5), "9/hour per global"),
    }
    assert len(registry) == 2
    assert len(RuleRegistry()) == 0
    with pytest.raises(InvalidInputError, match="declared twice in code, with different rules"):
        registry.add("POST /sessions", "6/minute")
    with pytest.raises(InvalidInputError, match="expected at least one rule"):
        registry.add("GET /y")
    book = merge_rules({**registry.rules, **OURS}, FILE)
    assert [rule.policy for rule in book["GET /x"]] == ["ip-5-60s", "global-9-3600s"]
