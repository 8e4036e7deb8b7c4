"""The middleware for WSGI applications of any framework (PEP 3333)."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias, Unpack

from sluicegate.presentation.web.endpoint_finder import PathReadings
from sluicegate.presentation.web.environ import EnvironLimiter, EnvironOptions, decoded
from sluicegate.presentation.web.known_routers import known_router

StartResponse: TypeAlias = Callable[..., Any]
WSGIApp: TypeAlias = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class WSGIRateLimitMiddleware:
    """Limit requests.

    Args:
        app: The application.
        path_readings: See `PathReadings`.
        options: See `EnvironLimiter`. Rules name paths as `RateLimitMiddleware`'s do: `GET /items/{id:int}`; functions get the
            environment.

    Raises:
        InvalidInputError: If an option, a rule or a setting is wrong.
    """

    def __init__(
        self, app: WSGIApp, *, path_readings: PathReadings = "auto", **options: Unpack[EnvironOptions]
    ) -> None:
        self.app = app
        self._requests = EnvironLimiter(path_readings=path_readings, **options)
        if path_readings == "auto":
            self._requests.requests.endpoints.router = known_router(app).router

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a denied request; call the application for every other."""
        path = decoded(environ.get("PATH_INFO", "")) or "/"
        decision = self._requests.check(environ, path, path, environ)
        if decision is None:
            return self.app(environ, start_response)
        if not decision.result.allowed:
            denial = self._requests.denial(decision)
            start_response(f"{denial.status} {HTTPStatus(denial.status).phrase}", list(denial.headers))
            return [] if environ.get("REQUEST_METHOD") == "HEAD" else [denial.body]
        fields = self._requests.headers(decision)

        def start_with_fields(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401
            present = {name.lower() for name, _ in headers}
            added = [(name, value) for name, value in fields if name not in present]
            return start_response(status, [*headers, *added], *([exc_info] if exc_info else []))

        return self.app(environ, start_with_fields)
