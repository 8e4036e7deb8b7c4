"""The middleware for WSGI applications of any framework (PEP 3333)."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias, Unpack

from sluicegate.application.check import Decision
from sluicegate.application.rate_limited_error import RateLimitedError
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.presentation.web.headers import BODY_FIELDS, DenialResponse, Headers
from sluicegate.presentation.web.request_reader import require_functions
from sluicegate.presentation.web.request_record import is_list
from sluicegate.presentation.web.routes.endpoint_finder import PathReadings
from sluicegate.presentation.web.routes.known_routers import known_router
from sluicegate.presentation.web.wsgi.environ import EnvironLimiter, EnvironOptions, decoded, fields_to_send
from sluicegate.presentation.web.wsgi.settled_body import StartResponse, WSGIApp, claimed_so_far, settle

DenialFunction: TypeAlias = Callable[[dict[str, Any], DenialResponse], WSGIApp]
"""Return what answers a denied request: a response, such as Werkzeug's, is an application."""


class WSGIRateLimitMiddleware:
    """Limit requests.

    A `RateLimitedError` that the application raises before its response has begun is answered like a denied request.

    Args:
        app: The application.
        path_readings: See `PathReadings`.
        on_denied: Returns the response to a denied request in place of the problem details, as a WSGI application. Header fields
            that it leaves out are added.
        options: See `EnvironLimiter`. Rules name paths as `RateLimitMiddleware`'s do: `GET /items/{id:int}`; functions get the
            environment.

    Raises:
        InvalidInputError: If an option, a rule or a setting is wrong.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        path_readings: PathReadings = "auto",
        on_denied: DenialFunction | None = None,
        **options: Unpack[EnvironOptions],
    ) -> None:
        require_functions({"on_denied": on_denied}, awaits=False)
        self.app = app
        self._on_denied = on_denied
        self._requests = EnvironLimiter(path_readings=path_readings, **options)
        if path_readings == "auto":
            self._requests.requests.endpoints.router = known_router(app).router

    @property
    def limiter(self) -> SyncTokenBucketAdapter:
        """The limiter, for `reset` and the like."""
        return self._requests.limiter

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a denied request; call the application for every other."""
        outside = claimed_so_far(environ)
        path = decoded(environ.get("PATH_INFO", "")) or "/"
        decision = self._requests.check(environ, path, path, environ)
        if decision is not None and not decision.result.allowed:
            return self._deny(environ, start_response, decision)
        started = False

        def start_and_tell(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401
            nonlocal started
            started = True
            told = _with_fields(headers, fields_to_send(environ), joining=True)
            return start_response(status, told, *([exc_info] if exc_info else []))

        try:
            return settle(self.app, environ, start_and_tell, outside)
        except RateLimitedError as error:
            if started:
                raise
            return self._deny(environ, start_and_tell, error.decision)

    def _deny(self, environ: dict[str, Any], start_response: StartResponse, decision: Decision) -> Iterable[bytes]:
        denial = self._requests.denial(environ, decision)
        if self._on_denied is not None:
            try:
                answer = self._on_denied(environ, denial)
            except Exception as error:  # noqa: BLE001 - the request is denied all the same
                self._requests.requests.warn("on_denied", "on_denied failed.", error)
            else:
                left_out = tuple(field for field in denial.headers if field[0] not in BODY_FIELDS)

                def start_with_fields(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401
                    told = _with_fields(headers, left_out, joining=False)
                    return start_response(status, told, *([exc_info] if exc_info else []))

                return answer(environ, start_with_fields)
        start_response(f"{denial.status} {HTTPStatus(denial.status).phrase}", list(denial.headers))
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [denial.body]


def _with_fields(headers: list[tuple[str, str]], fields: Headers, *, joining: bool) -> list[tuple[str, str]]:
    """Return a response's header fields and others: those that are lists, if `joining`, and those that it does not have."""
    present = {name.lower() for name, _ in headers}
    told = list(headers)
    for name, value in fields:
        if name not in present or (joining and is_list(name)):
            told.append((name, value))
            present.add(name)
    return told
