"""Labels: the names of rules in force, and no others."""

from sluicegate import MemoryStorage, RateLimitRule, TokenBucketAdapter
from sluicegate.domain.rules.rule_names import RuleNames


def test_only_names_of_rules_in_force_are_labels() -> None:
    """Of endpoints asked together the rule of any; nothing of an endpoint that no rule names."""
    one, two = RateLimitRule.per_minute(1, scope="a"), RateLimitRule.per_minute(2, scope="b")
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /one": one, "GET /two": two})
    names = RuleNames(limiter.rules)
    assert names.labels("GET /one", one.policy) == ("GET /one", one.policy)
    assert names.labels("GET /one", two.policy) == ("GET /one", two.policy)
    assert names.labels("GET /one", "") == ("GET /one", "")
    assert names.labels("GET /one", "made-up") == ("GET /one", "other")
    assert names.labels("made up", one.policy) == ("other", "other")
    assert names.labels("made up", "") == ("other", "")
    limiter.rules.replace({"GET /two": two})
    assert names.labels("GET /one", two.policy) == ("other", "other")
    assert names.labels("GET /two", one.policy) == ("GET /two", "other")
