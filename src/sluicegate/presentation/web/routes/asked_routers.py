"""Ask the router behind which route it will take: then no reading of the path has to be guessed."""

import re
from typing import Any, Final, NamedTuple, Protocol

from sluicegate.domain.routing.served_table import shape
from sluicegate.domain.routing.template import A_MESSAGE
from sluicegate.presentation.web.incoming_request import IncomingRequest

_SLASHES: Final = re.compile("/{2,}")
_OF_WEBSOCKETS: Final = frozenset({"WEBSOCKET", A_MESSAGE})
_NO_ROUTE: Final[frozenset[str]] = frozenset()


class ServedPath(NamedTuple):
    """What a router makes of a request.

    Args:
        path: The path as it reads it.
        route: The shapes of the route that will serve it, see `shape`; empty: none will. None: another application will, which
            is mounted there and may read the rest in any way.
    """

    path: str
    route: frozenset[str] | None


class AskedRouter(Protocol):
    """A router that tells which route it will take."""

    shapes: frozenset[str]
    """Those of all routes."""

    def ask(self, request: IncomingRequest, /) -> ServedPath | None:
        """Return what it makes of a request; None if that cannot be told."""
        ...


class LitestarRouter:
    """Litestar's router. It caches what it finds, so that the application asks it the second time.

    Args:
        router: The application's `asgi_router`.
    """

    def __init__(self, router: Any) -> None:  # noqa: ANN401 - not installed everywhere
        self.shapes: frozenset[str] = _NO_ROUTE
        self._router = router
        self._known_routes = 0
        self._by_handler: dict[tuple[str, int], frozenset[str]] = {}

    def ask(self, request: IncomingRequest) -> ServedPath | None:
        """Return what the router makes of a request; None if it answers in a way that is not known."""
        path = request.whole_path()
        root = request.root_path()
        if root:
            path = path.split(root, 1)[-1]
        path = f"/{path.strip('/')}"
        if "//" in path:
            path = _SLASHES.sub("/", path)
        routes: list[Any] = self._router.app.routes
        if len(routes) != self._known_routes:
            self._read(routes)
        method = None if request.method in _OF_WEBSOCKETS else request.method
        try:
            found: Any = self._router.handle_routing(path=path, method=method)
            handler, rest, template = found[1], str(found[2]).rstrip("/"), str(found[4])  # the template: since 2.14
        except Exception as error:  # noqa: BLE001 - of classes that are not installed everywhere
            # Without a status it is not the router's answer to a path that it does not serve.
            return ServedPath(path, _NO_ROUTE) if isinstance(getattr(error, "status_code", None), int) else None
        if getattr(handler, "is_mount", False):
            # What begins like the mount leads there, also without a slash after it.
            return ServedPath(_SLASHES.sub("/", f"{path.removesuffix(rest)}/{rest}"), None)
        route = self._by_handler.get((template, id(handler)))
        return None if route is None else ServedPath(path, route)

    def _read(self, routes: list[Any]) -> None:
        """Note the application's routes, which may get more."""
        by_handler: dict[tuple[str, int], frozenset[str]] = {}
        for route in routes:
            form = frozenset({shape(route.path)})
            for handler in getattr(route, "route_handlers", None) or [route.route_handler]:
                key = (str(route.path_format), id(handler))
                by_handler[key] = by_handler.get(key, _NO_ROUTE) | form
        self._by_handler = by_handler
        self.shapes = _NO_ROUTE.union(*by_handler.values())
        self._known_routes = len(routes)


def asked_router(app: object) -> AskedRouter | None:
    """Return what asks the router of an application, or the router itself; None if it cannot be asked."""
    router: object = getattr(app, "asgi_router", app)
    if type(router).__module__.startswith("litestar.") and hasattr(router, "handle_routing"):
        return LitestarRouter(router)
    return None
