"""One ASGI application for each framework and set of options, all with the routes of `routes.py`.

The header `x-app` says which is asked. Handlers answer `served:NAME`, and the middleware tells in `RateLimit-Policy` which rules
it counted.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import blacksheep
import falcon.asgi
import fastapi
import litestar
import quart
import sanic
from django.core.asgi import get_asgi_application
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from frameworks import django_site
from frameworks.raw_requests import END_OF_FIELDS
from frameworks.routes import BELOW, MOUNTED, ROUTES, options_of, rules
from sluicegate import RateLimitMiddleware

_METHODS = ("GET", "WEBSOCKET")


def _served(name: str) -> list[tuple[Any, Any]]:
    """Return the header field by which an accepted websocket tells its route."""
    return [(b"x-served", name.encode())]


def starlette_app(**options: Any) -> Any:
    """Starlette, with a mounted application."""

    def route(name: str, path: str) -> Route:
        return Route(path, lambda _: PlainTextResponse(f"served:{name}"))

    def accepting(name: str, path: str) -> WebSocketRoute:
        async def accept(websocket: Any) -> None:
            await websocket.accept(headers=_served(name))

        return WebSocketRoute(path, accept)

    inner = Starlette(routes=[one("sub", BELOW["sub"]) for one in (route, accepting)])
    routes = [one(name, path) for name, path in ROUTES.items() for one in (route, accepting)]
    app = Starlette(routes=[*routes, Mount("/sub", inner)])
    app.router.redirect_slashes = options.get("redirect_slashes", True)
    return app


def fastapi_app(**options: Any) -> Any:
    """FastAPI, with an included router."""
    app = fastapi.FastAPI(**options)

    def add(router: Any, name: str, path: str) -> None:
        async def handler() -> Any:
            return PlainTextResponse(f"served:{name}")

        async def accept(websocket: fastapi.WebSocket) -> None:
            await websocket.accept(headers=_served(name))

        router.add_api_route(path, handler)
        router.add_api_websocket_route(path, accept)

    for name, path in ROUTES.items():
        add(app, name, path)
    router = fastapi.APIRouter(prefix="/sub")
    add(router, "sub", "/items/{id}")
    app.include_router(router)
    return app


def litestar_app(**options: Any) -> Any:
    """Litestar, with a router."""

    def handler(name: str, path: str) -> Any:
        @litestar.get(path, media_type="text/plain", name=name, sync_to_thread=False)
        def serve() -> str:
            return f"served:{name}"

        return serve

    def accepting(name: str, path: str) -> Any:
        @litestar.websocket(path, name=f"accept-{name}")
        async def accept(socket: litestar.WebSocket) -> None:
            await socket.accept(headers={"x-served": name})

        return accept

    typed = {"item": "/items/{id:str}", "sub": "/items/{id:str}"}
    kinds = (handler, accepting)
    handlers = [one(name, typed.get(name, path)) for name, path in ROUTES.items() for one in kinds]
    return litestar.Litestar(
        [*handlers, litestar.Router("/sub", route_handlers=[one("sub", typed["sub"]) for one in kinds])],
        openapi_config=None,
        **options,
    )


def quart_app(**options: Any) -> Any:
    """Quart, with a blueprint."""
    app = quart.Quart("quart_app")
    app.url_map.strict_slashes = options.get("strict_slashes", True)
    app.url_map.merge_slashes = options.get("merge_slashes", True)

    def add(to: Any, name: str, path: str) -> None:
        async def serve(**_: Any) -> str:
            return f"served:{name}"

        async def accept(**_: Any) -> None:
            await quart.websocket.accept(headers={"x-served": name})

        to.add_url_rule(werkzeug_path(path), name, serve)
        to.add_websocket(werkzeug_path(path), f"accept-{name}", accept)

    for name, path in ROUTES.items():
        add(app, name, path)
    blueprint = quart.Blueprint("sub", "quart_app", url_prefix="/sub")
    add(blueprint, "sub", "/items/{id}")
    app.register_blueprint(blueprint)
    return app


def werkzeug_path(path: str) -> str:
    """Return a template in Werkzeug's words."""
    return path.replace("{id}", "<id>").replace("{n:int}", "<int:n>").replace("{rest:path}", "<path:rest>")


class _Resource:
    """Falcon's resource, for WSGI and ASGI."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class _AsyncResource(_Resource):
    async def on_get(self, _: Any, response: Any, **__: Any) -> None:
        response.text = f"served:{self._name}"


def falcon_app(**options: Any) -> Any:
    """Falcon. It has no sub-applications; `path` must stand last."""
    app = falcon.asgi.App()
    for name, value in options.items():
        setattr(app.req_options, name, value)
    for name, path in (ROUTES | MOUNTED).items():
        app.add_route(path, _AsyncResource(name))
    return app


def sanic_app(**options: Any) -> Any:
    """Sanic, with a blueprint."""
    app = sanic.Sanic(f"sanic_{abs(hash(str(options)))}", configure_logging=False, **options)
    app.config.TOUCHUP = False

    def add(to: Any, name: str, path: str) -> None:
        async def serve(_: Any, **__: Any) -> Any:
            return sanic.text(f"served:{name}")

        to.add_route(serve, sanic_path(path), name=name)

    for name, path in ROUTES.items():
        add(app, name, path)
    blueprint = sanic.Blueprint("sub", url_prefix="/sub")
    add(blueprint, "sub", "/items/{id}")
    app.blueprint(blueprint)
    return app


def sanic_path(path: str) -> str:
    """Return a template in Sanic's words."""
    return path.replace("{id}", "<id>").replace("{n:int}", "<n:int>").replace("{rest:path}", "<rest:path>")


def blacksheep_app() -> Any:
    """BlackSheep, with a mounted application."""
    app, inner = blacksheep.Application(router=blacksheep.Router()), blacksheep.Application(router=blacksheep.Router())

    def add(to: Any, name: str, path: str) -> None:
        async def serve() -> Any:
            return blacksheep.text(f"served:{name}")

        to.router.add_get(path, serve)

    for name, path in ROUTES.items():
        add(app, name, path.replace("{n:int}", "{int:n}").replace("{rest:path}", "{path:rest}"))
    add(inner, "sub", "/items/{id}")
    app.mount("/sub", inner)
    app.mount_registry.auto_events = True
    return app


def limited(app: Any, *, reverse: bool = False) -> RateLimitMiddleware:
    """Return an application behind the middleware."""
    return RateLimitMiddleware(app, rules=rules(reverse=reverse, methods=_METHODS), **options_of())


def inside(app: Any) -> Any:
    """Return a Starlette application with the middleware inside."""
    app.add_middleware(RateLimitMiddleware, rules=rules(methods=_METHODS), **options_of())
    return app


django_site.set_up()
APPS: dict[str, Callable[..., Any]] = {
    "starlette": limited(starlette_app()),
    "starlette-no-redirects": limited(starlette_app(redirect_slashes=False)),
    "starlette-inside": inside(starlette_app()),
    "fastapi": limited(fastapi_app()),
    "fastapi-root": limited(fastapi_app(root_path="/api")),
    "fastapi-root-inside": inside(fastapi_app(root_path="/api")),
    "litestar": limited(litestar_app()),
    "litestar-in-starlette": limited(Starlette(routes=[Mount("/", litestar_app())])),
    "quart": limited(quart_app()),
    "quart-loose": limited(quart_app(strict_slashes=False)),
    "quart-unmerged": limited(quart_app(merge_slashes=False)),
    "falcon": limited(falcon_app()),
    "falcon-strip": limited(falcon_app(strip_url_path_trailing_slash=True)),
    "falcon-reverse": limited(falcon_app(), reverse=True),
    "sanic": limited(sanic_app()),
    "sanic-strict": limited(sanic_app(strict_slashes=True)),
    "blacksheep": limited(blacksheep_app()),
    "django-inside": get_asgi_application(),
}
_WITHOUT_LIFESPAN = "django-inside"
WEBSOCKETS = ("starlette", "fastapi", "litestar", "quart")
"""Those that accept websockets."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Call the application that the request names; start all of them first."""
    if scope["type"] == "lifespan":
        await receive()
        for name, one in APPS.items():
            if name != _WITHOUT_LIFESPAN:
                await _start(one)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    name = next(value for field, value in scope["headers"] if field == b"x-app")
    await APPS[name.decode()](scope, receive, telling(send) if scope["type"] == "websocket" else send)


def telling(send: Any) -> Any:
    """Return a `send` that tells the header fields of an acceptance as a text as well: not every server sends them."""

    async def send_and_tell(message: dict[str, Any]) -> None:
        await send(message)
        if message["type"] == "websocket.accept":
            lines = [b"%b: %b\r\n" % (bytes(field), bytes(value)) for field, value in message.get("headers") or ()]
            await send({"type": "websocket.send", "text": (b"\r\n" + b"".join(lines) + END_OF_FIELDS).decode()})

    return send_and_tell


async def _start(one: Callable[..., Any]) -> None:
    """Send an application the message that it may start, and wait until it has; its end is the process's."""
    started = asyncio.Event()

    async def receive() -> dict[str, str]:
        if started.is_set():
            await asyncio.Event().wait()
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, Any]) -> None:
        assert message["type"] == "lifespan.startup.complete", message
        started.set()

    task = asyncio.ensure_future(one({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    _TASKS.add(task)
    waiting = asyncio.ensure_future(started.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


_TASKS: set[asyncio.Future[Any]] = set()
