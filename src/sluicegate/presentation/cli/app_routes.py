"""List the routes of a Starlette or FastAPI application as endpoints, which rules can name."""

import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.web.routes.known_routers import low_priority_routes

_NEVER_LIMITED = frozenset({"HEAD", "OPTIONS"})  # a rule for GET counts HEAD too; the framework answers OPTIONS


def load_app(place: str) -> object:
    """Import an application.

    Args:
        place: `module:attribute`; the attribute may have dots. The working directory is searched first.

    Raises:
        InvalidInputError: If there is no such application, or importing it fails.
    """
    module_name, colon, attribute = place.partition(":")
    if not (module_name and colon and attribute):
        raise InvalidInputError(f"app={place!r:.80}: expected module:attribute, such as main:app")
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:
        sys.path.insert(0, working_directory)
    try:
        app: object = import_module(module_name)
    except Exception as error:
        raise InvalidInputError(
            f"app={place!r:.80}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    for name in attribute.split("."):
        app = getattr(app, name, None)
        if app is None:
            raise InvalidInputError(f"app={place!r:.80}: {module_name} has no {attribute}")
    return app


def endpoints_of(app: object) -> list[str]:
    """Return an application's routes as `METHOD /path/{template}`, in their order, without duplicates.

    Args:
        app: An application with an attribute `routes`, such as Starlette's and FastAPI's.

    Raises:
        InvalidInputError: If it has no such attribute.
    """
    routes = getattr(app, "routes", None)
    if not isinstance(routes, Iterable):
        raise InvalidInputError(f"app={type(app).__name__}: has no routes; expected a Starlette or FastAPI application")
    found = [*_endpoints(cast("Iterable[object]", routes), ""), *_low_priority_endpoints(app)]
    return list(dict.fromkeys(found))


def _endpoints(routes: Iterable[object], prefix: str) -> Iterator[str]:
    for included in routes:
        # FastAPI keeps an included router as one route, which can list its own routes.
        contexts: Any = getattr(included, "effective_route_contexts", None)
        if contexts is not None:
            yield from _endpoints(contexts(), prefix)
            continue
        route: Any = getattr(included, "starlette_route", None) or included
        kind = type(getattr(included, "original_route", route)).__name__
        below: Any = getattr(route, "routes", None)
        path: str = prefix + (getattr(route, "path", "") or "")
        if below:
            yield from _endpoints(below, path)
        elif kind.endswith("WebSocketRoute"):
            yield f"WEBSOCKET {path}"
        elif hasattr(route, "methods"):
            methods: Iterable[str] = getattr(route, "methods", None) or ("*",)
            yield from (f"{method} {path}" for method in sorted(methods) if method not in _NEVER_LIMITED)
        elif path or hasattr(route, "app"):
            yield f"* {path}/{{path:path}}"  # a mounted application, whose routes are unknown


def _low_priority_endpoints(app: object) -> Iterator[str]:
    """Yield what FastAPI serves where no other route matches: the files of `frontend`."""
    for candidate in low_priority_routes(app):
        prefix: str = getattr(candidate, "frontend_prefix", "")
        group: Any = getattr(candidate, "original_route", candidate)
        for route in getattr(group, "routes", ()):
            path = f"{prefix}{route.path}".rstrip("/")
            yield f"GET {path}/{{path:path}}"
