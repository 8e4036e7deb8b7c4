"""A WSGI application whose answers settle what was claimed for the request: when the server closes the body (PEP 3333)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from sluicegate.presentation.web.request_claims import RequestClaims
from sluicegate.presentation.web.request_record import claims_in

StartResponse: TypeAlias = Callable[..., Any]
WSGIApp: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class SettledBody:
    """A response's body, which settles at its end.

    What holds nothing, and whose cost is known, is settled before the client can have the whole: before the first part, if the
    client knows from the answer's length when it has all.

    Args:
        body: The application's.
        claims: What is settled.
        since: How much of it was claimed further outside, which settles it itself.
        length_is_known: Whether the client knows the length.
    """

    def __init__(self, body: Iterable[bytes], claims: RequestClaims, since: int, *, length_is_known: bool) -> None:
        self._body = body
        self._claims = claims
        self._since = since
        self._length_is_known = length_is_known or isinstance(body, list | tuple)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._body:
            if self._length_is_known:
                self._length_is_known = False
                self._claims.settle_known_blocking()
            yield part
        self._claims.settle_blocking(
            self._since
        )  # the server has sent all, and need not close what it has read to its end

    def close(self) -> None:
        """Close the application's body, and settle; the server calls it, also when the client has gone."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._claims.settle_blocking(self._since)


def claimed_so_far(environ: dict[str, Any]) -> int:
    """Return how much is claimed for a request already."""
    claims = claims_in(environ)
    return 0 if claims is None else len(claims.claims)


def settle(app: WSGIApp, environ: dict[str, Any], start_response: StartResponse, since: int) -> Iterable[bytes]:
    """Call an application, and settle what is claimed for the request when its answer has been sent.

    Args:
        app: The application.
        environ: The request's environment.
        start_response: The server's.
        since: How much was claimed further outside, which settles it itself.
    """
    started = length_is_known = False

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401 - as PEP 3333 has it
        nonlocal started, length_is_known
        started = True
        length_is_known = any(name.lower() == "content-length" for name, _ in headers)
        claims = claims_in(environ)
        if claims is not None:
            claims.answered(int(status.split(" ", 1)[0]), headers)
            headers = [field for field in headers if field[0].lower() not in claims.private]
        return start_response(status, headers, *([exc_info] if exc_info else []))

    try:
        body = app(environ, start)
    except BaseException as error:
        claims = claims_in(environ)
        if claims is not None:
            if isinstance(error, Exception) and not started:
                claims.failed(since)
            claims.settle_blocking(since)
        raise
    claims = claims_in(environ)
    if claims is None or len(claims.claims) <= since:
        return body
    return SettledBody(body, claims, since, length_is_known=length_is_known)
