"""Stopping a server at its start because of a mistake that only shows then.

Starlette and FastAPI build their middleware when they are first called, which is when the server asks them to start. What is
raised there the server takes for an application that knows nothing of starting: it goes on, and every request is a 500.
"""

import sys
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Any, TypeVar, cast

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.web.asgi.messages import ASGIApp, Receive, Scope, Send

F = TypeVar("F", bound=Callable[..., None])

_MAX_FRAMES = 8  # our own, between Starlette's and the one that asks


class StartupFailure:
    """An application that cannot start: it tells the server why, in one line.

    Args:
        error: Why.
    """

    def __init__(self, error: Exception) -> None:
        self._message = f"sluicegate: {error}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse to start.

        Raises:
            InvalidInputError: If the server has not asked to start, but sends a request.
        """
        if scope["type"] != "lifespan":
            raise InvalidInputError(self._message)
        await receive()
        await send({"type": "lifespan.startup.failed", "message": self._message})


def built_late(build_failure: Callable[[Any, ASGIApp], None]) -> Callable[[F], F]:
    """Decorate the constructor of a middleware: where Starlette calls it late, a mistake is told when the server starts.

    Args:
        build_failure: Constructs the middleware, with no limits, in front of an application.
    """

    def decorate(init: F) -> F:
        @wraps(init)
        def construct(self: object, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the constructor's own
            try:
                init(self, *args, **kwargs)
            except (InvalidInputError, TypeError) as error:
                if not _is_called_by_starlette():
                    raise
                build_failure(self, StartupFailure(error))

        return cast("F", construct)

    return decorate


def _is_called_by_starlette() -> bool:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    for _ in range(_MAX_FRAMES):
        if frame is None:
            return False
        if frame.f_code.co_name == "build_middleware_stack":
            return True
        frame = frame.f_back
    return False
