"""Where the route is known, templates of its shape are for its requests and for no others."""

import pytest

from sluicegate.domain.routing.served_table import shape
from sluicegate.domain.routing.table import RouteTable
from sluicegate.domain.routing.template import parse_endpoint

ROUTES = frozenset({"/items/{}", "/items/special", "/n/{}", "/files/{path}", "/slash"})


def served(path: str, route: str, *endpoints: str) -> str | None:
    """Return the endpoint of a GET that a route serves; empty: none does."""
    templates = [parse_endpoint(endpoint) for endpoint in endpoints]
    table = RouteTable(template for template in templates if template is not None)
    return table.match_served("GET", path, frozenset({route} - {""}), ROUTES)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("/", "/"),
        ("/items/{id}", "/items/{}"),
        ("/items/{id:int}/", "/items/{}"),
        ("/items/{ id : date }", "/items/{}"),
        ("/files/{rest:path}", "/files/{path}"),
        ("/a-{b}.{c:int}", "/a-{}.{}"),
    ],
)
def test_shapes(template: str, expected: str) -> None:
    """Names and types are left out, but for `path`."""
    assert shape(template) == expected


@pytest.mark.parametrize(
    ("path", "route", "endpoints", "found"),
    [
        # The route, not the order of the rules, decides between a literal and a parameter.
        ("/items/special", "/items/special", ("GET /items/{id}", "GET /items/special"), "GET /items/special"),
        ("/items/special", "/items/{}", ("GET /items/special", "GET /items/{id}"), "GET /items/{id}"),
        # Without a rule of its own it has none, or the one for everything.
        ("/items/special", "/items/special", ("GET /items/{id}",), None),
        ("/items/special", "/items/special", ("GET /items/{id}", "* /{rest:path}"), "* /{rest:path}"),
        # What the router takes for a number is one, and a slash at the end is none.
        ("/n/-3", "/n/{}", ("GET /n/{n:int}",), "GET /n/{n:int}"),
        ("/n/-3", "/n/{}", ("* /{rest:path}", "GET /n/{n:int}"), "* /{rest:path}"),
        ("/n/-3", "/n/{}", ("GET /n/{n:int}", "* /{rest:path}"), "GET /n/{n:int}"),
        ("/slash", "/slash", ("GET /slash/",), "GET /slash/"),
        ("/slash", "/slash", ("GET /slash/", "GET /slash"), "GET /slash"),
        ("/files/a\nb", "/files/{path}", ("GET /files/{rest:path}",), "GET /files/{rest:path}"),
        # A rule for a part of a route's paths comes in the order of the rules.
        ("/items/42", "/items/{}", ("GET /items/42", "GET /items/{id}"), "GET /items/42"),
        ("/items/43", "/items/{}", ("GET /items/42", "GET /items/{id}"), "GET /items/{id}"),
        ("/files/a", "/files/{path}", ("GET /files/{name}", "GET /files/{rest:path}"), "GET /files/{name}"),
        ("/files/a/b", "/files/{path}", ("GET /files/{name}", "GET /files/{rest:path}"), "GET /files/{rest:path}"),
        # What no route serves is matched by its path alone; methods count.
        ("/items/special", "", ("GET /items/{id}", "GET /items/special"), "GET /items/{id}"),
        ("/n/-3", "", ("GET /n/{n:int}",), None),
        ("/items/3", "/items/{}", ("POST /items/{id}",), None),
    ],
)
def test_what_a_route_serves(path: str, route: str, endpoints: tuple[str, ...], found: str | None) -> None:
    """The first declared template that is for the request is its endpoint."""
    assert served(path, route, *endpoints) == found


def test_many_applications_share_rules() -> None:
    """The tables of applications that come and go do not pile up."""
    table = RouteTable([one for one in [parse_endpoint("GET /{a}")] if one is not None])
    for number in range(300):
        routes = frozenset({"/{}", f"/{number}"})
        assert table.match_served("GET", f"/{number}", frozenset({f"/{number}"}), routes) is None
    assert len(table._served) <= 100
