"""A Starlette application: signed-in users are counted by name, a websocket by handshakes and messages, CORS outside.

Run: `python examples/apps/starlette_app.py 8000`, then four times
`curl -i -H "Authorization: Bearer alice" http://127.0.0.1:8000/me`.
"""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from sluicegate import RateLimitMiddleware, RateLimitRule


class Tokens(AuthenticationBackend):
    """Tell users by their tokens. A real backend verifies them; the limiter believes what this one says."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return whose token it is."""
        name = conn.headers.get("Authorization", "").removeprefix("Bearer ")
        return (AuthCredentials(), SimpleUser(name)) if name in {"alice", "bob"} else None


async def me(request: Request) -> Response:
    """Tell users who they are."""
    return JSONResponse({"user": request.user.display_name})


async def feed(websocket: WebSocket) -> None:
    """Greet, and say again what the client says."""
    await websocket.accept()
    await websocket.send_text("hello")
    async for text in websocket.iter_text():
        await websocket.send_text(text)


app = Starlette(
    routes=[Route("/me", me), WebSocketRoute("/feed/{room}", feed)],
    middleware=[
        Middleware(
            CORSMiddleware,
            allow_origins=["https://app.example"],
            expose_headers=["Retry-After", "RateLimit", "RateLimit-Policy"],
        ),
        Middleware(AuthenticationMiddleware, backend=Tokens()),
        Middleware(
            RateLimitMiddleware,
            rules={
                "GET /me": RateLimitRule.parse("3/minute per user"),
                "WEBSOCKET /feed/{room}": RateLimitRule.parse("2/minute"),
                "MESSAGE /feed/{room}": RateLimitRule.parse("3/minute"),
            },
            denied_messages=1013,
            trusted_proxies=["10.0.0.0/8"],
        ),
    ],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
