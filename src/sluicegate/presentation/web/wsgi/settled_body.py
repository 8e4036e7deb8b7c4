"""A WSGI application (PEP 3333) whose answers settle what was claimed for the request."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from sluicegate.presentation.web.body_end import BodyEnd
from sluicegate.presentation.web.request_claims import RequestClaims
from sluicegate.presentation.web.request_record import claims_in

StartResponse: TypeAlias = Callable[..., Any]
WSGIApp: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class SettledBody:
    """A response's body, which settles what is known before the client has the whole, and the rest at its end.

    Args:
        body: The application's.
        claims: What is settled.
        since: How much of it was claimed further outside, which settles it itself.
        started: The answer's start, which may come with the first part.
    """

    def __init__(self, body: Iterable[bytes], claims: RequestClaims, since: int, started: "SettledStart") -> None:
        self._body = body
        self._claims = claims
        self._since = since
        self._started = started

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            if self._started.comes_with(len(part)):
                self._claims.settle_known_blocking()
            yield part
        # The server has sent all, and need not close what it has read to its end.
        self._claims.settle_blocking(self._since)

    def close(self) -> None:
        """Close the application's body, and settle; the server calls it, also when the client has gone."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._claims.settle_blocking(self._since)


class SettledStart:
    """The `start_response` of an application whose answers are settled.

    Args:
        environ: The request's environment.
        start_response: The server's.
    """

    def __init__(self, environ: dict[str, Any], start_response: StartResponse) -> None:
        self._environ = environ
        self._start_response = start_response
        self._end: BodyEnd | None = None
        self.has_come = False
        """Whether the application has called it."""

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401 - as PEP 3333 has it
        """Note the answer, and pass it on without what is not for the client."""
        self.has_come = True
        claims = claims_in(self._environ)
        if claims is not None:
            code = int(status.split(" ", 1)[0])
            self._end = BodyEnd(str(self._environ.get("REQUEST_METHOD", "GET")), code, headers)
            claims.answered(code, headers)
            headers = [field for field in headers if field[0].lower() not in claims.private]
        return self._start_response(status, headers, *([exc_info] if exc_info else []))

    def comes_with(self, size: int) -> bool:
        """Note a part of the body, and return whether the client has all with it."""
        return self._end is not None and self._end.comes_with(size)


def claimed_so_far(environ: dict[str, Any]) -> int:
    """Return how much is claimed for a request already."""
    claims = claims_in(environ)
    return 0 if claims is None else len(claims.claims)


def settle(app: WSGIApp, environ: dict[str, Any], start_response: StartResponse, since: int) -> Iterable[bytes]:
    """Call an application, and settle what is claimed for the request, at the latest when the server closes the answer's body.

    Args:
        app: The application.
        environ: The request's environment.
        start_response: The server's.
        since: How much was claimed further outside, which settles it itself.
    """
    started = SettledStart(environ, start_response)
    try:
        body = app(environ, started)
    except BaseException as error:
        claims = claims_in(environ)
        if claims is not None:
            if isinstance(error, Exception) and not started.has_come:
                claims.failed(since)
            claims.settle_blocking(since)
        raise
    claims = claims_in(environ)
    if claims is None or len(claims.claims) <= since:
        return body
    if isinstance(body, list | tuple) or started.comes_with(0):
        claims.settle_known_blocking()
    return SettledBody(body, claims, since, started)
