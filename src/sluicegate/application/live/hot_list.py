"""The hottest clients of several processes as one list, no longer than each of theirs."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from sluicegate.application.hot_keys import HotKey, HotKeys

MAX_KEYS: Final = 50
"""How many clients a list has at most."""


class HotList(msgspec.Struct, frozen=True):
    """The clients that ask most, or are denied most.

    Args:
        keys: These, those with the highest counts first.
        others: How often any client that is not among them did so at most.
    """

    keys: tuple[HotKey, ...] = ()
    others: int = 0


def hot_list(most: Callable[[int], list[HotKey]], capacity: int) -> HotList:
    """Return the list of one process.

    Args:
        most: Returns so many of the hottest keys; of `HotKeys`.
        capacity: How many these tell apart.
    """
    found = most(MAX_KEYS + 1)
    kept = found[:MAX_KEYS]
    # What is not told apart has taken the place of nothing so far, or was no hotter than the coldest that is.
    others = found[-1].count if len(found) > MAX_KEYS or len(found) == capacity else 0
    return HotList(tuple(kept), others)


def hot_lists(hot_keys: HotKeys) -> tuple[HotList, HotList]:
    """Return the keys of this process with the most requests and the most denials."""
    return (
        hot_list(hot_keys.most_asked, hot_keys.capacity),
        hot_list(hot_keys.most_denied, hot_keys.capacity),
    )


def merge(lists: Sequence[HotList]) -> HotList:
    """Return one list of several processes. Its counts are upper bounds; its errors tell by how much they may be too high."""
    if len(lists) == 1:
        return lists[0]
    known = [{(one.endpoint, one.identifier): one for one in each.keys} for each in lists]
    merged: list[HotKey] = []
    for key in dict.fromkeys([key for each in known for key in each]):
        count, error = 0, 0
        for each, keys in zip(lists, known, strict=True):
            found = keys.get(key)
            count += each.others if found is None else found.count
            error += each.others if found is None else found.error
        merged.append(HotKey(*key, count, error))
    merged.sort(key=lambda one: (-one.count, one.endpoint, one.identifier))
    others = sum(each.others for each in lists)
    if len(merged) > MAX_KEYS:
        others = max(others, merged[MAX_KEYS].count)
    return HotList(tuple(merged[:MAX_KEYS]), others)
