"""Find the endpoint that a request belongs to: the first declared template that matches, as in Starlette's router."""

from collections.abc import Iterable

from sluicegate.domain.routing.method_table import MethodTable
from sluicegate.domain.routing.segment_tree import NEVER
from sluicegate.domain.routing.served_table import ServedTable
from sluicegate.domain.routing.template import A_MESSAGE, MESSAGE, RouteTemplate

_MAX_SERVED = 100  # methods of applications that share rules


class RouteTable:
    """Match requests to templates.

    The cost of a match does not depend on the number of templates.

    Args:
        templates: The templates in order of precedence, which is the order in which they were declared.
    """

    __slots__ = ("_any", "_by_method", "_declared", "_served")

    def __init__(self, templates: Iterable[RouteTemplate]) -> None:
        declared = tuple(templates)
        self._declared = declared
        methods = {template.method for template in declared} - {MESSAGE} | {A_MESSAGE}
        if "GET" in methods:
            methods.add("HEAD")
        self._by_method = {method: self._table_of(method) for method in methods}
        self._any = self._table_of("*")
        self._served: dict[tuple[str, frozenset[str]], ServedTable] = {}

    def __reduce__(self) -> tuple[type["RouteTable"], tuple[tuple[RouteTemplate, ...]]]:
        # Compiled classes cannot be copied or pickled attribute by attribute.
        return RouteTable, (self._declared,)

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint of the first declared template that matches; None if none does.

        Args:
            method: The request's method in capitals, `WEBSOCKET`, or `A_MESSAGE`. Templates for `GET` match `HEAD` as well.
            path: The path, decoded, without the query: ASGI's `path` without its `root_path`.
        """
        found = self._by_method.get(method, self._any).find(path)
        return None if found == NEVER else self._declared[found].endpoint

    def match_every(
        self, method: str, path: str, ignoring_case: bool = False, empty_parameters: bool = True
    ) -> list[str]:
        """Return the endpoints that a request may belong to in routers of any kind, the one that `match` returns first.

        Args:
            method: As in `match`.
            path: As in `match`: one of the path's readings.
            ignoring_case: Whether letters match in either case.
            empty_parameters: Whether a parameter may take an empty segment.
        """
        exact = self._by_method.get(method, self._any)
        order = exact.find(path)
        every = exact.every_table(ignoring_case, empty_parameters)
        if order != NEVER and every.is_alone(order, path):
            return [self._declared[order].endpoint]
        found = every.find(path)
        if order != NEVER:
            found = [order, *[place for place in found if place != order]]
        return [self._declared[place].endpoint for place in found]

    def match_served(self, method: str, path: str, route: frozenset[str], routes: frozenset[str]) -> str | None:
        """Return the endpoint of a request whose route is known; None if no template is for it.

        Args:
            method: As in `match`.
            path: As in `match`, as the router reads it.
            route: The shapes of the route that serves the path; see `shape`. Empty: none does.
            routes: The shapes of all routes of the application.
        """
        exact = self._by_method.get(method, self._any)
        served = self._served.get((exact.method, routes))
        if served is None:
            if len(self._served) >= _MAX_SERVED:
                self._served.clear()
            served = self._served[exact.method, routes] = ServedTable(exact, routes)
        found = served.find(path, route)
        return None if found == NEVER else self._declared[found].endpoint

    def _table_of(self, method: str) -> MethodTable:
        """Return the table of the templates that match requests of a method: those of messages match nothing else."""
        methods = {"HEAD": ("HEAD", "GET", "*"), A_MESSAGE: (MESSAGE,)}.get(method, (method, "*"))
        return MethodTable(
            [(order, template) for order, template in enumerate(self._declared) if template.method in methods], method
        )
