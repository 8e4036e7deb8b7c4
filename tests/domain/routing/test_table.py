"""The route table finds the template that Starlette's router would dispatch to, whatever a client sends."""

import copy
import os
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Match, Route

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.routing.automaton import State
from sluicegate.domain.routing.pattern import AutomatonPattern
from sluicegate.domain.routing.table import RouteTable
from sluicegate.domain.routing.template import parse_endpoint

PAIRS_PER_EXAMPLE = 10
EXAMPLES = 10_000 if os.environ.get("SLUICEGATE_LONG") else 300


def table_of(*endpoints: str) -> RouteTable:
    """Return the table of some endpoints."""
    return RouteTable(template for template in map(parse_endpoint, endpoints) if template)


def router_of(*endpoints: str) -> list[Route]:
    """Return Starlette's routes for the same endpoints."""
    routes: list[Route] = []
    for endpoint in endpoints:
        method, _, path = endpoint.partition(" ")
        routes.append(Route(path, object(), methods=None if method == "*" else [method], name=endpoint))  # type: ignore[arg-type]
    return routes


def dispatched_to(routes: list[Route], method: str, path: str) -> str | None:
    """Return the endpoint that Starlette's router would call."""
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "root_path": ""}
    return next((route.name for route in routes if route.matches(scope)[0] is Match.FULL), None)


LITERALS = st.sampled_from(["a", "b", "ab", "files", "-", ".json", "1", "v", "0", "é", "A", "%2F", " "])
CONVERTERS = st.sampled_from(["", ":str", ":int", ":float", ":uuid", ":path"])
UUID = "01234567-89ab-cdef-ABCD-EF0123456789"
VALUES = {
    "str": ["a", "x-y", "1", "1.5", "a.json", "{p0}", "{p0:int}", "\n", "é", "v", "-"],
    "int": ["1", "007", "12345678901234567890", "٣"],
    "float": ["1", "1.5", "0.", "10.25", ".5"],
    "uuid": [UUID, UUID.replace("-", ""), UUID[:-1]],
    "path": ["", "a", "a/b", "x/-/1/", "a\nb", "/", "//", "v/files"],
}


@st.composite
def endpoints(draw: st.DrawFn) -> str:
    """Draw an endpoint."""
    path, parameters = "", 0
    for _ in range(draw(st.integers(1, 4))):
        path += "/"
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
            if draw(st.booleans()):
                path += draw(LITERALS)
            else:
                path += f"{{p{parameters}{draw(CONVERTERS)}}}"
                parameters += 1
    return f"{draw(st.sampled_from(['GET', 'GET', 'GET', 'POST', 'HEAD', '*']))} {path}"


@st.composite
def requests(draw: st.DrawFn, declared: list[str]) -> tuple[str, str]:
    """Draw a request that fits one of the endpoints, or almost does."""
    path = draw(st.sampled_from(declared)).partition(" ")[2]
    path = re.sub(r"\{\w+:?(\w*)\}", lambda found: draw(st.sampled_from(VALUES[found[1] or "str"])), path)
    if draw(st.booleans()):
        place = draw(st.integers(0, len(path)))
        path = path[:place] + draw(st.sampled_from(["/", "a", "1", "\n", "-", ".", "%"])) + path[place:]
    match draw(st.integers(0, 12)):
        case 0:
            path += "\n"
        case 1:
            path += "/"
        case 2:
            path = path.rstrip("/")
        case 3:
            path = path.upper()
        case _:
            pass
    return draw(st.sampled_from(["GET", "GET", "HEAD", "POST", "DELETE"])), path


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_agrees_with_starlette(data: st.DataObject) -> None:
    """Whatever route Starlette's router would dispatch a request to, the table names the same one, or none likewise."""
    declared = data.draw(st.lists(endpoints(), min_size=1, max_size=8, unique=True))
    table, routes = table_of(*declared), router_of(*declared)
    for _ in range(PAIRS_PER_EXAMPLE):
        method, path = data.draw(requests(declared))
        assert table.match(method, path) == dispatched_to(routes, method, path), (method, path)


@pytest.mark.parametrize(
    ("endpoint", "path", "fits"),
    [
        ("GET /accounts/{id}", "/accounts/7", True),
        ("GET /accounts/{id}", "/accounts/", False),
        ("GET /accounts/{id}", "/accounts/7/", False),
        ("GET /accounts/{id}", "/accounts//7", False),
        ("GET /accounts/{id}", "/Accounts/7", False),
        ("GET /accounts/{id}", "/accounts/7\n", True),
        ("GET /accounts", "/accounts\n", True),
        ("GET /accounts", "/accounts\n\n", False),
        ("GET /accounts/{id:int}", "/accounts/12", True),
        ("GET /accounts/{id:int}", "/accounts/-12", False),
        ("GET /accounts/{id:int}", "/accounts/١٢", False),
        ("GET /at/{where:float}", "/at/1.5", True),
        ("GET /at/{where:float}", "/at/1.", False),
        ("GET /things/{id:uuid}", f"/things/{UUID}", True),
        ("GET /things/{id:uuid}", f"/things/{UUID[1:]}", False),
        ("GET /files/{name}.json", "/files/a.b.json", True),
        ("GET /files/{name}.json", "/files/.json", False),
        ("GET /files/{name}.json", "/files/a.xml", False),
        ("GET /{a}-{b}-{c}", "/x-y-z", True),
        ("GET /{a}-{b}-{c}", "/x-y", False),
        ("GET /v{major:int}.{minor:int}", "/v1.20", True),
        ("GET /v{major:int}.{minor:int}", "/v1.x", False),
        ("GET /tree/{rest:path}", "/tree/", True),
        ("GET /tree/{rest:path}", "/tree", False),
        ("GET /tree/{rest:path}", "/tree/a\nb", False),
        ("GET /tree/{rest:path}/edit", "/tree/a/b/edit", True),
        ("GET /tree/{rest:path}/edit", "/tree/edit", False),
        ("GET /tree/{rest:path}/v/{n:int}", "/tree/a/v/b/v/3", True),
        ("GET /{a:path}/x/{b:path}/y", "/1/x/2/x/3/y", True),
        ("GET /{a:path}/x/{b:path}/y", "/1/y/2/x", False),
        ("GET /{a}{rest:path}", "/a/b", True),
        ("GET /{a}{rest:path}", "/a/b\nc", False),
        ("GET /accounts", "accounts", False),
        ("GET /accounts", "", False),
    ],
)
def test_one_template(endpoint: str, path: str, fits: bool) -> None:
    """A template fits what its converters take, and nothing that only looks like it."""
    assert table_of(endpoint).match("GET", path) == (endpoint if fits else None)
    assert dispatched_to(router_of(endpoint), "GET", path) == (endpoint if fits else None)


def test_the_first_declared_wins() -> None:
    """Of several templates that fit, the first one declared is found, as the router has it."""
    assert table_of("GET /users/me", "GET /users/{id}").match("GET", "/users/me") == "GET /users/me"
    assert table_of("GET /users/{id}", "GET /users/me").match("GET", "/users/me") == "GET /users/{id}"
    assert table_of("GET /{rest:path}", "GET /users/{id}").match("GET", "/users/1") == "GET /{rest:path}"


def test_methods() -> None:
    """HEAD is answered by GET's rule, a method by its own, and any method by an asterisk or a path alone."""
    table = table_of("GET /a", "POST /a", "* /b", "/c", "WEBSOCKET /d")
    assert table.match("HEAD", "/a") == "GET /a"
    assert table.match("POST", "/a") == "POST /a"
    assert table.match("DELETE", "/a") is None
    assert table.match("DELETE", "/b") == "* /b"
    assert table.match("BREW", "/c") == "/c"
    assert table.match("WEBSOCKET", "/d") == "WEBSOCKET /d"
    assert table.match("GET", "/d") is None
    assert table_of("HEAD /a", "GET /a").match("HEAD", "/a") == "HEAD /a"


@pytest.mark.parametrize(
    ("endpoint", "word"),
    [
        ("GET /a/{id:number}", "unknown converter 'number'"),
        ("GET /a/{id}/{id}", "'id' occurs twice"),
        ("GET /a/{id", "braces"),
        ("GET /a/id}", "braces"),
        ("GET /a/{}", "braces"),
        ("GET /a/{1st}", "braces"),
        ("GET a/{id}", "begins with /"),
        ("GET ", "begins with /"),
        ("get /a", "method in capitals"),
        ("GET /a?b=c", "without query"),
    ],
)
def test_bad_templates(endpoint: str, word: str) -> None:
    """A template that cannot be read is an error that repeats it and says what is wrong."""
    with pytest.raises(InvalidInputError, match=re.escape(word)) as caught:
        parse_endpoint(endpoint)
    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize("endpoint", ["send_email", "send email", "Check the mail", "{id}"])
def test_names_that_are_no_routes(endpoint: str) -> None:
    """An endpoint may be any name; without a method or a slash it is not read as a template."""
    assert parse_endpoint(endpoint) is None


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("GET /{a}-{b}-{c}-{d}-{e}.z", "/" + "-" * 20_000),
        ("GET /{a:int}1{b:int}1{c:int}1{d:int}x", "/" + "1" * 20_000),
        ("GET /{a:path}/x/{b:path}/x/{c:path}/x/{d:path}/y", "/x" * 10_000),
        ("GET /{a}/{b}/{c:path}/{d:path}/{e:path}/f", "/" * 20_000),
    ],
)
def test_hostile_paths_take_linear_time(endpoint: str, path: str) -> None:
    """A path that would keep a backtracking expression busy for hours is answered at once."""
    assert table_of(endpoint).match("GET", path) is None


def test_strange_characters_stay_bounded() -> None:
    """A client that walks through Unicode does not fill the memory of a template's automaton."""
    table = table_of("GET /{a:int}-{b}")
    for start in range(0, 60_000, 1_000):
        path = "/1-" + "".join(chr(code) for code in range(start, start + 1_000) if code != ord("/"))
        assert table.match("GET", path) is not None
    sizes = [len(state.next) for state in _states(table)]
    assert any(sizes)
    assert max(sizes) <= 256


def through_pickle(table: RouteTable) -> RouteTable:
    """Return what another process would unpickle."""
    copied: RouteTable = pickle.loads(pickle.dumps(table))  # noqa: S301 - pickled right here
    return copied


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_pickle])
def test_a_table_can_be_copied_and_pickled(duplicate: Callable[[RouteTable], RouteTable]) -> None:
    """The copy matches the same paths, whether the table is compiled or not."""
    table = duplicate(table_of("GET /a/{x:int}-{y}", "GET /a/{x}", "GET /files/{x:path}/y"))
    assert [table.match("GET", path) for path in ("/a/1-b", "/a/b", "/files/b/c/y", "/b")] == [
        "GET /a/{x:int}-{y}",
        "GET /a/{x}",
        "GET /files/{x:path}/y",
        None,
    ]


def _states(table: RouteTable) -> list[State]:
    patterns = table._by_method["GET"].tree.root.composite_index.patterns()
    automata = [pattern.automaton for pattern in patterns if isinstance(pattern, AutomatonPattern)]
    return [state for automaton in automata for state in automaton.cached_states()]
