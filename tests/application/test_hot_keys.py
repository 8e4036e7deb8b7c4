"""Clients with the most requests and denials: counted from a limiter's events; no identifier unless asked for."""

from typing import Any

import pytest

from sluicegate import InlineEventBus, InvalidInputError, MemoryStorage, RateLimitRule, TokenBucketAdapter
from sluicegate.hot_keys import HotKeys
from sluicegate.testing import FailingStorage


async def watched(storage: Any = None, **options: Any) -> HotKeys:
    """Ask six times for one client, twice for another, and return what was counted."""
    bus = InlineEventBus()
    hot_keys = HotKeys(bus, **options)
    rules = {"GET /a": RateLimitRule.per_minute(4)}
    limiter = TokenBucketAdapter(
        storage=storage or MemoryStorage(), rules=rules, event_bus=bus, on_storage_error="deny"
    )
    for identifier in ["ann of x"] * 6 + ["bob"] * 2:
        await limiter.is_allowed(endpoint="GET /a", identifier=identifier)
    return hot_keys


async def test_the_hottest_clients_come_first() -> None:
    """Those that ask, and those that are denied."""
    hot_keys = await watched(raw_identifiers=True)
    assert [(one.key, one.count, one.error) for one in hot_keys.most_asked()] == [
        ("GET /a ann of x", 6, 0),
        ("GET /a bob", 2, 0),
    ]
    assert [(one.key, one.count) for one in hot_keys.most_denied()] == [("GET /a ann of x", 2)]
    assert len(hot_keys.most_asked(1)) == 1


async def test_what_is_refused_while_the_storage_fails_counts_as_denied() -> None:
    """By the failure policy `deny`."""
    hot_keys = await watched(FailingStorage(), raw_identifiers=True)
    assert [(one.key, one.count) for one in hot_keys.most_denied()] == [("GET /a ann of x", 6), ("GET /a bob", 2)]


async def test_no_identifier_is_kept_unless_asked_for() -> None:
    """The same client has the same digits wherever the secret is the same."""
    one, other, third = await watched(secret=b"s"), await watched(secret=b"s"), await watched()
    assert [hot.key for hot in one.most_asked()] == [hot.key for hot in other.most_asked()]
    assert one.most_asked()[0].key != third.most_asked()[0].key
    for hot_keys in (one, third):
        assert "ann" not in repr(hot_keys.most_asked()) + repr(hot_keys._asked._counts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 0}, "capacity=0: expected 1 to 100000"),
        ({"capacity": "x"}, "capacity='x': expected a whole number"),
        ({"secret": b"x" * 65}, "secret: has 65 bytes"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], message: str) -> None:
    """With what was expected."""
    with pytest.raises(InvalidInputError, match=message):
        HotKeys(InlineEventBus(), **options)
