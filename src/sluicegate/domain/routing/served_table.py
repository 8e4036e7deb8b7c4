"""Find the endpoint of a request whose route is known, because the router behind has been asked."""

import re
from typing import Final

from sluicegate.domain.routing.method_table import MethodTable
from sluicegate.domain.routing.segment_tree import NEVER

_PARAMETER: Final = re.compile(r"\{[^{}:]*(?::([a-z]*)[^{}]*)?\}")


def shape(template: str) -> str:
    """Return a path's template without what its parameters are called and made of, and without its last slash.

    Templates of one shape name the same route: `/items/{id:int}` and `/items/{item}`. A parameter that takes any number of
    segments stays different.

    Args:
        template: The template, with its parameters in braces.
    """
    return _PARAMETER.sub(_parameter_shape, template).rstrip("/") or "/"


def _parameter_shape(found: re.Match[str]) -> str:
    return "{path}" if found[1] == "path" else "{}"


class ServedTable:
    """The templates that match requests of one method, where the application's routes are known.

    A template that has the shape of a route is for the requests that this route serves, whatever its router makes of their
    paths, and for no others. The other templates are for all requests whose path they match. The first declared comes first.

    Args:
        exact: The templates by their paths.
        routes: The shapes of all routes.
    """

    __slots__ = ("_by_route", "_exact", "_first", "_routes", "_shapes")

    def __init__(self, exact: MethodTable, routes: frozenset[str]) -> None:
        self._exact = exact
        self._routes = routes
        self._shapes: dict[int, str] = {}
        self._first: dict[str, int] = {}
        for order, template in exact.declared:
            form = shape(template.endpoint[template.endpoint.index("/") :])
            self._shapes[order] = form
            self._first.setdefault(form, order)
        self._by_route: dict[frozenset[str], MethodTable] = {}

    def find(self, path: str, route: frozenset[str]) -> int:
        """Return the place of the first template for a request, `NEVER` if there is none.

        Args:
            path: The path as the router reads it.
            route: The shapes of the route that serves it; empty: none does.
        """
        found = self._exact.find(path)
        if not route:
            return found
        if found != NEVER:
            form = self._shapes[found]
            if form in route:
                return found
            if form in self._routes:
                found = self._without_other_routes(route).find(path)
                if found != NEVER and self._shapes[found] in route:
                    return found
        for form in route:
            found = min(found, self._first.get(form, NEVER))
        return found

    def _without_other_routes(self, route: frozenset[str]) -> MethodTable:
        """Return the table without the templates of other routes. Few routes need one: those whose paths fit others' as well."""
        table = self._by_route.get(route)
        if table is None:
            others = self._routes - route
            kept = [one for one in self._exact.declared if self._shapes[one[0]] not in others]
            table = self._by_route[route] = MethodTable(kept, self._exact.method)
        return table
