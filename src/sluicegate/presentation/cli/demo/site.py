"""The web site of the demo: two pages and two rules, on a free port of the loopback interface."""

import socket
from threading import Event, Thread
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sluicegate.container import build_rate_limit
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.infrastructure.settings import Settings
from sluicegate.presentation.web.asgi.middleware import RateLimitMiddleware

ARTICLES = "GET /articles/{page}"
LOGIN = "POST /login"
RATES = {ARTICLES: "2/second burst 12", LOGIN: "5/minute"}
"""Endpoints and their rates, per address."""

_START_S = 20.0


class DemoSite:
    """Serve the site in a thread while the `with` block runs.

    Args:
        forwarded: Whether to take the client's address from `X-Forwarded-For`, for systems whose loopback interface has only
            one address.

    Raises:
        OSError: If no port of 127.0.0.1 can be opened, or the server does not start.
    """

    def __init__(self, *, forwarded: bool) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        """The port that it listens on."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                protected_site(forwarded=forwarded),
                log_level="critical",
                lifespan="off",
                ws="none",
                loop="asyncio",
                proxy_headers=False,  # the middleware decides which proxies to trust
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


def protected_site(*, forwarded: bool) -> RateLimitMiddleware:
    """Return the site behind a limiter with buckets in memory, whatever storage the environment names."""
    site = Starlette(routes=[Route("/articles/{page}", _article), Route("/login", _login, methods=["POST"])])
    rules = {endpoint: RateLimitRule.parse(rate) for endpoint, rate in RATES.items()}
    limiter = build_rate_limit(Settings(), rules=rules)
    return RateLimitMiddleware(site, limiter=limiter, trusted_proxies=("127.0.0.1",) if forwarded else ())


async def _article(request: Request) -> JSONResponse:
    return JSONResponse({"page": request.path_params["page"], "title": "On sluices and gates"})


async def _login(_: Request) -> JSONResponse:
    return JSONResponse({"error": "wrong password"}, status_code=401)
