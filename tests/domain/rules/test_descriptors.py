"""Matching descriptors with a tree, as the reference server does, and naming what they are counted by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.rules.descriptors import Entry, ValuePattern, endpoint_of, identifier_of
from sluicegate.infrastructure.ratelimit_config.reader import parse_configs

TREE = """
domain: d
descriptors:
  - key: key1
    value: value1
    descriptors:
      - key: subkey1
        rate_limit: {unit: second, requests_per_unit: 5}
      - key: subkey1
        value: subvalue1
        rate_limit: {unit: second, requests_per_unit: 10}
  - key: key2
    rate_limit: {unit: minute, requests_per_unit: 20}
  - key: key2
    value: value2
    rate_limit: {unit: minute, requests_per_unit: 30}
  - key: key2
    value: allowed
  - key: key3
    rate_limit: {unit: hour, requests_per_unit: 1}
    descriptors:
      - key: below
        rate_limit: {unit: hour, requests_per_unit: 2}
  - key: wild
    value: foo*
    rate_limit: {unit: hour, requests_per_unit: 3}
  - key: wild
    value: bar*b
    rate_limit: {unit: hour, requests_per_unit: 4}
  - key: wild
    value: foo*bar*baz
    rate_limit: {unit: hour, requests_per_unit: 6}
  - key: wild
    value: foobar
    rate_limit: {unit: hour, requests_per_unit: 7}
  - key: nested
    value: a*
    descriptors:
      - key: leaf
        value: "*z"
        rate_limit: {unit: hour, requests_per_unit: 8}
  - key: greedy
    value: x
    descriptors:
      - key: other
        rate_limit: {unit: hour, requests_per_unit: 9}
  - key: greedy
    descriptors:
      - key: leaf
        rate_limit: {unit: hour, requests_per_unit: 11}
  - key: a_b
    rate_limit: {unit: hour, requests_per_unit: 12}
"""


def limit_of(*entries: Entry) -> int | None:
    """Return the requests per unit that the tree has for a descriptor."""
    book, _ = parse_configs([("tree.yaml", TREE)])
    found = book.domains["d"].match(entries)
    return None if found is None else found[0].window.requests


@pytest.mark.parametrize(
    ("entries", "requests"),
    [
        ([("key1", "value1")], None),  # shallower than any limit
        ([("key1", "value1"), ("subkey1", "something")], 5),
        ([("key1", "value1"), ("subkey1", "subvalue1")], 10),  # the value goes before the key alone
        ([("key1", "other"), ("subkey1", "subvalue1")], None),
        ([("key1", "value1"), ("subkey1", "subvalue1"), ("more", "x")], None),  # deeper than any limit
        ([("key2", "")], 20),
        ([("key2", "anything")], 20),
        ([("key2", "value2")], 30),
        ([("key2", "allowed")], None),  # a node without a limit lets pass
        ([("key3", "x")], 1),
        ([("key3", "x"), ("below", "y")], 2),
        ([("key3", "x"), ("unknown", "y")], None),
        ([("unknown", "x")], None),
        ([("wild", "foo")], 3),
        ([("wild", "foo_1")], 3),
        ([("wild", "foobar")], 7),  # exact before patterns, wherever it stands
        ([("wild", "bar1b")], 4),
        ([("wild", "bar")], None),
        ([("wild", "foo-bar-baz")], 3),  # the first pattern of the file that fits
        ([("wild", "fo")], None),
        ([("nested", "abc"), ("leaf", "xyz")], 8),
        ([("nested", "abc"), ("leaf", "xy")], None),
        ([("greedy", "x"), ("leaf", "1")], None),  # no way back from the value that matched
        ([("greedy", "y"), ("leaf", "1")], 11),
        ([("a", "b")], None),  # not the key a_b
    ],
)
def test_a_descriptor_is_matched_as_the_reference_matches_it(entries: list[Entry], requests: int | None) -> None:
    """Value, then patterns in their order, then the key alone; only a limit at the last entry counts; no way back."""
    assert limit_of(*entries) == requests


def test_values_that_fit_a_shared_pattern_share_a_bucket() -> None:
    """`share_threshold` counts by the pattern, and without it each value is counted by itself."""
    text = """
domain: d
descriptors:
  - {key: f, value: files/*, share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 10}}
  - {key: f, value: own/*, rate_limit: {unit: hour, requests_per_unit: 10}}
"""
    tree = parse_configs([("x", text)])[0].domains["d"]
    shared = {tree.match([("f", f"files/{name}")]) for name in ("a.pdf", "b.csv")}
    own = {tree.match([("f", f"own/{name}")]) for name in ("a.pdf", "b.csv")}
    assert (len(shared), len(own)) == (1, 2)


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("*", "", True),
        ("a*a", "a", False),  # the two ends may not overlap
        ("a*a", "aa", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "acb", False),
        ("a**b", "ab", True),
        ("*x*", "\nx\n", True),
    ],
)
def test_an_asterisk_stands_for_any_characters(pattern: str, value: str, fits: bool) -> None:
    """Zero or more of them, line breaks included."""
    assert ValuePattern(pattern).fits(value) is fits


texts = st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(["=", ",", "%", "%3D", "#", "a,b=c"])
descriptors = st.lists(st.tuples(texts.filter(bool), texts), min_size=1, max_size=3)


@given(descriptors, descriptors)
def test_different_descriptors_are_counted_by_different_texts(one: list[Entry], other: list[Entry]) -> None:
    """Whatever their keys and values hold."""
    assert (identifier_of(one) == identifier_of(other)) is (one == other)


@given(st.tuples(texts.filter(bool), descriptors), st.tuples(texts.filter(bool), descriptors))
def test_different_nodes_have_different_endpoints(one: tuple[str, list[Entry]], other: tuple[str, list[Entry]]) -> None:
    """In any domains."""
    assert (endpoint_of(*one) == endpoint_of(*other)) is (one == other)


def test_a_long_descriptor_is_counted_by_its_hash() -> None:
    """It does not pass uncounted, and fits a key; another of the same beginning has another hash."""
    one, other = (identifier_of([("path", "x" * 5000 + tail)]) for tail in "ab")
    assert one.startswith("#")
    assert len(one) == len(other) == 65
    assert one != other
    assert identifier_of([("#", one)]) != one
