"""The middleware for WSGI applications of any framework (PEP 3333)."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias

from sluicegate.presentation.web.request_limiter import RequestLimiter

StartResponse: TypeAlias = Callable[..., Any]
WSGIApp: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class WSGIRateLimitMiddleware:
    """Limit requests.

    Args:
        app: The application.
        options: See `RequestLimiter`. Rules name routes as `RateLimitMiddleware`'s do: `GET /items/{id:int}`; functions get the
            environment.

    Raises:
        InvalidInputError: If an option, a rule or a setting is wrong.
    """

    def __init__(self, app: WSGIApp, **options: Any) -> None:  # noqa: ANN401 - RequestLimiter's options
        self.app = app
        self._gate = RequestLimiter(**options)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a denied request; else let the application do so."""
        # PEP 3333 hands bytes over as if they were Latin-1. Frameworks read them as UTF-8, and so match them.
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace") or "/"
        checked = self._gate.check(environ, path, path, environ)
        if checked is None:
            return self.app(environ, start_response)
        if not checked.result.allowed:
            refusal = self._gate.denial(checked)
            start_response(f"{refusal.status} {HTTPStatus(refusal.status).phrase}", list(refusal.headers))
            return [] if environ.get("REQUEST_METHOD") == "HEAD" else [refusal.body]
        fields = self._gate.fields(checked)

        def start_with_fields(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401
            present = {name.lower() for name, _ in headers}
            added = [(name, value) for name, value in fields if name not in present]
            return start_response(status, [*headers, *added], *([exc_info] if exc_info else []))

        return self.app(environ, start_with_fields)
