"""Which router an application has, as far as it can be told, and so how it reads paths."""

from collections.abc import Callable, Iterable
from functools import partial
from inspect import isclass, isroutine
from typing import Any, Final, NamedTuple, cast

from sluicegate.presentation.web.routes.asked_routers import AskedRouter, asked_router
from sluicegate.presentation.web.routes.endpoint_finder import Router

_UNKNOWN: Final = Router()
_EXACT: Final = Router(exact=True, empty_parameters=False)
_LOOSE: Final = Router(empty_parameters=False)
_BY_PACKAGE: Final = {
    "blacksheep": Router(ignoring_case=True, empty_parameters=False),
    "bottle": _LOOSE,
    "django": _LOOSE,
    "flask": _LOOSE,
    "litestar": _LOOSE,
    "pyramid": _LOOSE,
    "quart": _LOOSE,
    "sanic": _LOOSE,
}
_STARLETTE: Final = frozenset({"starlette.routing.Router", "starlette.applications.Starlette"})
_ROUTES: Final = frozenset({"starlette.routing.Route", "starlette.routing.WebSocketRoute"})
_MOUNTS: Final = frozenset({"starlette.routing.Mount", "starlette.routing.Host"})
_MAX_DEPTH: Final = 100  # wrappers, and mounts in mounts


class KnownRouter(NamedTuple):
    """What is known of an application.

    Args:
        router: How its router, and those of all applications mounted in it, read paths.
        root_path: The root path that it puts into each scope in place of the server's; None: it puts none.
        asked: What tells which route it takes; None: it cannot be asked.
    """

    router: Router
    root_path: str | None = None
    asked: AskedRouter | None = None


def known_router(app: object, depth: int = _MAX_DEPTH) -> KnownRouter:
    """Return how an application reads paths.

    Starlette's and FastAPI's routers are read exactly if all that is mounted in them is. What is not known may read paths in any
    way. Middlewares are seen through by their attribute `app`, and a method of an application (`app.wsgi_app`) as well.

    Args:
        app: What a middleware calls: the application, or another middleware.
        depth: How many wrappers and mounts are looked into.
    """
    for left in range(depth, 0, -1):
        names = class_names(app)
        if names & _STARLETTE:
            root_path = getattr(app, "root_path", None) if "fastapi.applications.FastAPI" in names else None
            routes = [*getattr(app, "routes", ()), *low_priority_routes(app)]
            return KnownRouter(_router_of(routes, left - 1), root_path or None)
        for name in names:
            router = _BY_PACKAGE.get(name.partition(".")[0])
            if router is not None:
                return KnownRouter(router, asked=asked_router(app))
        inner = getattr(app, "app", None) or getattr(app, "__self__", None)
        if inner is None or inner is app or getattr(app, "mounts", None):
            break  # what has mounts, as Werkzeug's dispatcher, leads to several applications
        app = inner
    return KnownRouter(_UNKNOWN)


def low_priority_routes(app: object) -> list[object]:
    """Return what FastAPI asks where no other route matches, as `frontend` adds it; empty for other applications."""
    router = getattr(app, "router", app)
    iterate: Callable[[], Iterable[object]] | None = getattr(router, "_iter_low_priority_routes", None)
    return [] if iterate is None else list(iterate())


def _router_of(routes: Iterable[object], depth: int) -> Router:
    router = _EXACT
    for route in routes:
        one = _router_of_route(route, depth)
        router = Router(
            router.exact and one.exact,
            router.ignoring_case or one.ignoring_case,
            router.empty_parameters or one.empty_parameters,
        )
    return router


def _router_of_route(route: Any, depth: int) -> Router:  # noqa: ANN401 - of any framework
    names = class_names(route)
    if names & _ROUTES:
        endpoint = route.endpoint
        while isinstance(endpoint, partial):
            endpoint = cast("partial[object]", endpoint).func
        if isroutine(endpoint) or isclass(endpoint) or ":path}" not in route.path:
            return _EXACT
        return known_router(endpoint, depth).router  # an application that gets all paths below may route them
    if names & _MOUNTS:
        return known_router(route.app, depth).router
    included = getattr(route, "original_router", None)  # FastAPI keeps an included router as one route
    if included is not None and depth:
        return _router_of(included.routes, depth - 1)
    return _UNKNOWN


def class_names(value: object) -> set[str]:
    """Return the whole names of an object's class and its bases."""
    return {f"{one.__module__}.{one.__qualname__}" for one in type(value).__mro__}
