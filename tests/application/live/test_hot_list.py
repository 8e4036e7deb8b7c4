"""The hottest clients of several processes: upper bounds that hold, whatever each of them knows."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

from sluicegate import InlineEventBus
from sluicegate.application.hot_keys import HotKey, HotKeys
from sluicegate.application.live.hot_list import MAX_KEYS, HotList, hot_lists, merge


def asked_of(hot_keys: HotKeys, clients: list[int]) -> HotList:
    """Count some clients, and return the list of the keys with the most requests."""
    for client in clients:
        event: Any = SimpleNamespace(endpoint="GET /a", identifier=f"{client}", allowed=True)
        hot_keys._note(event)
    return hot_lists(hot_keys)[0]


def test_a_client_that_one_process_does_not_list_counts_as_much_as_it_may_have_there() -> None:
    """The sum stays an upper bound, and the error says by how much it may be too high."""
    one = HotList((HotKey("e", "ann", 9, 1), HotKey("e", "bob", 5, 0)), 4)
    other = HotList((HotKey("e", "bob", 3, 0),), 0)
    assert merge([one, other]) == HotList((HotKey("e", "ann", 9, 1), HotKey("e", "bob", 8, 0)), 4)
    assert merge([one, HotList((), 2)]).keys[0] == HotKey("e", "ann", 11, 3)
    assert merge([one]) is one


def test_the_bounds_hold_for_random_traffic() -> None:
    """Of three processes with more clients than they can tell apart, against the exact counts."""
    chance = random.Random(3)
    exact: Counter[str] = Counter()
    lists = []
    for capacity in (20, 60, 1_000):
        clients = [int(chance.paretovariate(0.6)) % 500 for _ in range(3_000)]
        exact.update([f"{client}" for client in clients])
        lists.append(asked_of(HotKeys(InlineEventBus(), capacity=capacity, raw_identifiers=True), clients))
    merged = merge(lists)
    assert len(merged.keys) == MAX_KEYS
    known = {one.identifier: one for one in merged.keys}
    for client, count in exact.items():
        if client in known:
            assert known[client].count - known[client].error <= count <= known[client].count
        else:
            assert count <= merged.others
    assert known[exact.most_common(1)[0][0]].error < merged.keys[0].count


def test_nobody_else_is_hot_where_all_are_listed() -> None:
    """No client is missing, so none may have more."""
    assert asked_of(HotKeys(InlineEventBus()), [1, 1, 2]).others == 0
