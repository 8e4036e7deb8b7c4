"""Find the endpoints that a request belongs to, under the readings of its path that the router behind may have."""

from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.routing.readings import Reading, readings_of
from sluicegate.presentation.web.incoming_request import Exemptions, IncomingRequest
from sluicegate.presentation.web.routes.asked_routers import AskedRouter

PathReadings: TypeAlias = Literal["auto", "exact", "every", "every_ignoring_case"]
"""Under which readings of its path a request is counted: `exact` as Starlette's router reads it, `every` as any router may,
`every_ignoring_case` as one that takes letters in either case; `auto`: what the application behind is known to need."""


class Routes(Protocol):
    """What rules tell of their endpoints."""

    def match(self, method: str, path: str, /) -> str | None:
        """Return the endpoint of a request, read exactly."""
        ...

    def match_every(self, method: str, path: str, ignoring_case: bool, empty_parameters: bool, /) -> list[str]:
        """Return the endpoints that one reading of a path may belong to."""
        ...

    def match_served(self, method: str, path: str, route: frozenset[str], routes: frozenset[str], /) -> str | None:
        """Return the endpoint of a request whose route is known."""
        ...

    def scopes_of(self, endpoint: str, /) -> tuple[str, ...]:
        """Return the scopes whose identifiers a check needs."""
        ...


class Router(NamedTuple):
    """How a router reads paths, as far as that is known.

    Args:
        exact: Whether it matches the decoded path as it is, in the order of its routes, as Starlette's does.
        ignoring_case: Whether letters match in either case.
        empty_parameters: Whether a parameter may take an empty segment.
    """

    exact: bool = False
    ignoring_case: bool = False
    empty_parameters: bool = True


ROUTERS: dict[PathReadings, Router] = {
    "auto": Router(),
    "exact": Router(exact=True, empty_parameters=False),
    "every": Router(),
    "every_ignoring_case": Router(ignoring_case=True),
}
"""What users may choose."""


class FoundEndpoints:
    """The endpoints of a request.

    Args:
        endpoint: The first one: that of the exact reading, if a template fits it.
        path: The reading of the path that belongs to it.
        paths: All of them, each with its reading; None: there is only the first.
    """

    __slots__ = ("also", "endpoint", "path", "paths")

    def __init__(self, endpoint: str, path: str, paths: dict[str, str] | None = None) -> None:
        self.endpoint = endpoint
        self.path = path
        self.paths = paths
        self.also: tuple[str, ...] = () if paths is None else tuple(paths)[1:]


class EndpointFinder:
    """Find the endpoints of requests.

    Args:
        exempt: The paths that are not counted.
        readings: Under which readings of its path a request is counted; `auto` is `every` until the router is known.

    Raises:
        InvalidInputError: If there is no such choice.
    """

    def __init__(self, exempt: Exemptions, readings: PathReadings) -> None:
        if readings not in get_args(PathReadings):
            raise InvalidInputError(
                f"path_readings={readings!r:.80}: expected one of {', '.join(get_args(PathReadings))}"
            )
        self._exempt = exempt
        self.router = ROUTERS[readings]
        """The router whose readings are used."""
        self.asked: AskedRouter | None = None
        """What tells which route the application will take; None: there is nothing to ask."""

    def find(self, rules: Routes, request: IncomingRequest) -> FoundEndpoints | None:
        """Return the endpoints whose rules a request needs; None if it is exempt or there is nothing to ask.

        A path is exempt in the reading in which it is. If another one belongs to a template the request is counted: what a
        router serves as `/items/3` is not exempt for being written `/static/../items/3`.
        """
        router = self.router
        mounted: list[Reading] = []
        if self.asked is not None:
            served = self.asked.ask(request)
            if served is not None:
                if served.route is not None:
                    return self._served(rules, request, self.asked, served.path, served.route)
                mounted = readings_of(served.path)
        elif router.exact:
            exempt = self._exempt.cover(request.path)
            return None if exempt else _one(rules.match(request.method, request.route), request.path)
        if mounted or not request.is_plain():
            return self._find_any(rules, request, [reading.path for reading in [*request.readings(), *mounted]])
        return self._find_plain(rules, request)

    def _served(
        self, rules: Routes, request: IncomingRequest, asked: AskedRouter, path: str, route: frozenset[str]
    ) -> FoundEndpoints | None:
        if self._exempt.cover(path):
            return None
        return _one(rules.match_served(request.method, path, route, asked.shapes), path)

    def _find_plain(self, rules: Routes, request: IncomingRequest) -> FoundEndpoints | None:
        """Find the endpoints of a path that has one reading, as most have."""
        router, path = self.router, request.path
        if self._exempt.cover(path):
            return None
        found = rules.match_every(request.method, path, router.ignoring_case, router.empty_parameters)
        if not found:
            return _one(rules.match(request.method, path), path)
        if len(found) == 1:
            return FoundEndpoints(found[0], path)
        return FoundEndpoints(found[0], path, dict.fromkeys(found, path))

    def _find_any(self, rules: Routes, request: IncomingRequest, paths: list[str]) -> FoundEndpoints | None:
        router = self.router
        found: dict[str, str] = {}
        exempt = False
        fits = True  # whether a template fits the path as it is
        for path in paths:
            if self._exempt.cover(path):
                exempt = True
                continue
            endpoints = rules.match_every(request.method, path, router.ignoring_case, router.empty_parameters)
            if path == request.path:
                fits = bool(endpoints)
            for endpoint in endpoints:
                found.setdefault(endpoint, path)
        if not fits and not exempt:
            unmatched = rules.match(request.method, request.path)
            if unmatched is not None:
                found.setdefault(unmatched, request.path)
        if not found:
            return None
        first = next(iter(found))
        return FoundEndpoints(first, found[first], found)


def _one(endpoint: str | None, path: str) -> FoundEndpoints | None:
    return None if endpoint is None else FoundEndpoints(endpoint, path)
