"""Where the router is not known, no template that may take a path is left out, and none that no router would choose is in."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.domain.routing.every_table import EveryTable
from sluicegate.domain.routing.table import RouteTable
from sluicegate.domain.routing.template import Token, parse_endpoint

_SEGMENTS = ("a", "A", "{p}", "{p:int}", "{p:int}.json", "{p}.json", "{p:path}", "")
_VALUES = ("a", "A", "3", "-3", "3.json", "a.json", "")


def table_of(*endpoints: str) -> RouteTable:
    """Return the table of some endpoints."""
    return RouteTable(template for template in map(parse_endpoint, endpoints) if template)


@pytest.mark.parametrize(
    ("endpoints", "path", "found"),
    [
        (["GET /items/special", "GET /items/{id}"], "/items/special", ["GET /items/special"]),
        (["GET /items/{id}", "GET /items/special"], "/items/special", ["GET /items/{id}", "GET /items/special"]),
        (["GET /items/{id}", "GET /{x}/3"], "/items/3", ["GET /items/{id}", "GET /{x}/3"]),
        (["GET /{a}/x", "GET /x/{b}"], "/x/x", ["GET /{a}/x", "GET /x/{b}"]),
        (["GET /a/{rest:path}", "GET /a/{b}", "GET /a/b"], "/a/b", ["GET /a/{rest:path}", "GET /a/b"]),
        (["GET /n/{n:int}", "GET /n/{name}"], "/n/-3", ["GET /n/{name}", "GET /n/{n:int}"]),
        (["GET /n/{n:int}"], "/n/٣", ["GET /n/{n:int}"]),
        (["GET /n/{n:int}"], "/n/three", []),
        (["GET /n/{n:float}"], "/n/1e3", ["GET /n/{n:float}"]),
        (["GET /n/{n:uuid}"], "/n/{01234567-89AB-cdef-0123-456789abcdef}", ["GET /n/{n:uuid}"]),
        (["GET /n/{n:int}.json"], "/n/-3.json", ["GET /n/{n:int}.json"]),
        (["GET /n/{n:int}.json", "GET /n/{x}.json"], "/n/3.json", ["GET /n/{n:int}.json", "GET /n/{x}.json"]),
        (["GET /n/{x}.json", "GET /n/{n:int}.json"], "/n/-3.json", ["GET /n/{x}.json", "GET /n/{n:int}.json"]),
        (["GET /items/"], "/items", ["GET /items/"]),
        (["GET /items/", "GET /items"], "/items", ["GET /items"]),
        (["GET /items/{id}/"], "/items/3", ["GET /items/{id}/"]),
        (["GET /a/{b:path}/"], "/a/x/y", ["GET /a/{b:path}/"]),
        (["* /"], "/", ["* /"]),
        (["POST /items"], "/items", []),
    ],
)
def test_templates_that_may_take_a_path(endpoints: list[str], path: str, found: list[str]) -> None:
    """The first declared one and all most specific ones are found, in that order."""
    assert table_of(*endpoints).match_every("GET", path, False, False) == found


def test_empty_parameters() -> None:
    """A parameter takes an empty segment where the router's may; a template with the slash still goes before it."""
    table = table_of("GET /items/", "GET /items/{id}", "GET /n/{n}/x", "GET /m/{m:int}/x")
    assert table.match_every("GET", "/n//x") == ["GET /n/{n}/x"]
    assert table.match_every("GET", "/m//x") == []
    assert table.match_every("GET", "/n//x", False, False) == []
    assert table.match_every("GET", "/items/") == ["GET /items/"]
    assert table_of("GET /items/{id}").match_every("GET", "/items/") == ["GET /items/{id}"]


def test_letters_in_either_case() -> None:
    """Case is folded only where that is asked for, in templates as in paths."""
    table = table_of("GET /Items/{id}")
    assert table.match_every("GET", "/iTEMS/A", True) == ["GET /Items/{id}"]
    assert table.match_every("GET", "/items/A") == []


def test_methods() -> None:
    """HEAD belongs to GET's templates, an unknown method to those of any."""
    table = table_of("GET /a", "* /{b}", "GET /{b}")
    assert table.match_every("HEAD", "/a") == ["GET /a"]
    assert table.match_every("BREW", "/a") == ["* /{b}"]
    assert table.match_every("GET", "/x") == ["* /{b}"]  # the first of those that are the same


@given(
    st.lists(st.lists(st.sampled_from(_SEGMENTS), min_size=1, max_size=2), min_size=1, max_size=6),
    st.lists(st.lists(st.sampled_from(_VALUES), min_size=1, max_size=2), min_size=5, max_size=9),
    st.booleans(),
    st.booleans(),
)
def test_none_is_left_out(
    templates: list[list[str]], paths: list[list[str]], ignoring_case: bool, empty_parameters: bool
) -> None:
    """What fits by itself is found among others too, unless one that fits as well is more specific."""
    endpoints = dict.fromkeys(
        "GET /"
        + "/".join(one.replace("p", f"p{place}", 1) if "{" in one else one for place, one in enumerate(segments))
        for segments in templates
    )
    parsed = [template for template in map(parse_endpoint, endpoints) if template is not None]
    table = RouteTable(parsed)
    every = EveryTable(list(enumerate(parsed)), ignoring_case, empty_parameters)
    for path in ["/" + "/".join(values) for values in paths]:
        fits = [
            order
            for order, one in enumerate(parsed)
            if EveryTable([(order, one)], ignoring_case, empty_parameters).find(path)
        ]
        found = [
            parsed.index(one)
            for one in parsed
            if one.endpoint in table.match_every("GET", path, ignoring_case, empty_parameters)
        ]
        assert set(found) <= set(fits)
        for order in set(fits) - set(found):
            same = [
                other for other in found if _without_names(parsed[other].tokens) == _without_names(parsed[order].tokens)
            ]
            assert same or any(every._hides(other, order) for other in fits), (path, parsed[order], found)


def _without_names(tokens: Sequence[Token]) -> str:
    """Return a template as routers compare it: of two that are the same the first is enough; the last slash may be left out."""
    texts = [token if isinstance(token, str) else f"{{{token.converter}}}" for token in tokens]
    return "".join(texts).rstrip("/").casefold()
