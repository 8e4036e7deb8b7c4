"""The demonstration's web site: two pages, two rules, on a free port of the loopback interface."""

import math
import socket
from threading import Event, Thread
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sluicegate.container import build_rate_limit
from sluicegate.domain.protocols import RateLimitProtocol
from sluicegate.domain.result import Success
from sluicegate.domain.rule import RateLimitRule
from sluicegate.infrastructure.settings import Settings

ARTICLES = "GET /articles"
LOGIN = "POST /login"
RATES = {ARTICLES: "2/second burst 12", LOGIN: "5/minute"}
"""The rules of the site, per address."""

_START_S = 20.0


class DemoSite:
    """Serve the site from a thread while the `with` block runs.

    Args:
        forwarded: Whether to take the client's address from `X-Forwarded-For`, for systems whose loopback interface has only
            one address.

    Raises:
        OSError: If no port of 127.0.0.1 can be opened, or the server does not start.
    """

    def __init__(self, *, forwarded: bool) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        """Where it listens."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                protected_site(),
                log_level="critical",
                lifespan="off",
                ws="none",
                proxy_headers=forwarded,
                loop="asyncio",
            )
        )
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        waited = Event()
        for _ in range(int(_START_S / 0.02)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.02)
        if not self._server.started:
            self.__exit__(None, None, None)
            raise OSError("the demonstration's server did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._server.should_exit = True
        self._thread.join(_START_S)
        self._socket.close()


def protected_site() -> ASGIApp:
    """Return the application behind its limiter: in memory, whatever storage the environment names."""
    site = Starlette(routes=[Route("/articles", _articles), Route("/login", _login, methods=["POST"])])
    rules = {endpoint: RateLimitRule.parse(rate) for endpoint, rate in RATES.items()}
    return _Guard(site, build_rate_limit(Settings(), rules=rules))


async def _articles(request: Request) -> JSONResponse:
    return JSONResponse({"page": request.query_params.get("page", "1"), "articles": ["On sluices", "On gates"]})


async def _login(_: Request) -> JSONResponse:
    return JSONResponse({"error": "wrong password"}, status_code=401)


class _Guard:
    """Ask the limiter before the application."""

    def __init__(self, app: ASGIApp, limiter: RateLimitProtocol) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = f"{scope['method']} {scope['path']}"
        match await self._limiter.is_allowed(endpoint=endpoint, identifier=scope["client"][0]):
            case Success(value=result) if not result.allowed:
                headers = {"Retry-After": str(max(1, math.ceil(result.retry_after)))}
                await JSONResponse({"title": "Too many requests"}, 429, headers)(scope, receive, send)
            case _:
                await self._app(scope, receive, send)
