"""What WSGI, Flask, Django and REST framework share: requests that carry CGI's environment, and a limiter that is called."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeAlias, Unpack

from sluicegate.application.check import Decision
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.container import build_for_application
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rules.rule_book import Rules
from sluicegate.presentation.web.headers import BODY_FIELDS, DenialResponse, Headers
from sluicegate.presentation.web.incoming_request import IncomingRequest
from sluicegate.presentation.web.request_limiter import RequestLimiter, RequestOptions
from sluicegate.presentation.web.request_record import RECORD, RequestRecord, is_list
from sluicegate.presentation.web.routes.endpoint_finder import PathReadings
from sluicegate.presentation.web.routes.named_routes import unknown_routes

Environ: TypeAlias = Mapping[str, Any]
"""The environment of WSGI (PEP 3333), which Flask's and Django's requests carry as well."""


BUDGET: Final = "sluicegate.rate_limit"
"""Where the environment has what an application commits its cost with: see `RequestBudget`."""


class EnvironOptions(RequestOptions, total=False):
    """The options of `EnvironLimiter`, with their types."""

    rules: Rules | None
    limiter: SyncTokenBucketAdapter | None


class EnvironRequest(IncomingRequest):
    """A request that carries an environment.

    Args:
        environ: The environment.
        path: The path, decoded, without the query.
        route: The route's template as the framework writes it, or the path where it has none.
        subject: What functions of the application get.
        parameters: The path's parameters, where the framework tells them.
        view: What will answer, where the framework tells it.
    """

    __slots__ = ("_environ",)

    def __init__(  # noqa: PLR0913, PLR0917 - what a request is made of
        self,
        environ: Environ,
        path: str,
        route: str,
        subject: object,
        parameters: Mapping[str, object] | None = None,
        view: object = None,
    ) -> None:
        method = str(environ.get("REQUEST_METHOD", "GET")).upper()
        peer = environ.get("REMOTE_ADDR")
        notes = environ if isinstance(environ, dict) else None
        super().__init__(method, path, route, peer if isinstance(peer, str) else None, subject, parameters, notes, view)
        self._environ = environ

    def offer(self, budget: object) -> None:
        """Put it where the application finds it: into the framework's request, as `rate_limit`, and into the environment."""
        if self.notes is not None:
            self.notes[BUDGET] = budget
        if self.subject is not self._environ:
            setattr(self.subject, "rate_limit", budget)  # noqa: B010 - whatever the framework's request is

    def root_path(self) -> str:
        """Return the name of the script, in CGI's words."""
        return decoded(self._environ.get("SCRIPT_NAME") or "")

    def whole_path(self) -> str:
        """Return the path behind the root path, which the server has cut off."""
        return f"{self.root_path()}{self.path}"

    def header_lines(self, name: str) -> list[str]:
        """Return a header field as a list: servers have joined its lines with commas."""
        value = self._environ.get("HTTP_" + name.upper().replace("-", "_"))
        return [value] if isinstance(value, str) else []


def decoded(text: str) -> str:
    """Return a path of the environment as text: PEP 3333 passes bytes as if they were Latin-1, frameworks read them as UTF-8."""
    return text.encode("latin-1").decode("utf-8", "replace")


class EnvironLimiter:
    """Decide on requests that carry an environment.

    Args:
        rules: Endpoints and their rules; None: the rules file of the settings.
        limiter: The limiter; None: one built from the settings and the rules.
        path_readings: See `PathReadings`; the framework's own router has told the route if it is `exact`.
        awaits: Whether requests are checked by `check_awaiting`, so that limiter and functions may have to be awaited.
        options: `exempt`, `exempt_when`, `enabled`, `trusted_proxies`, `forwarded_header`, `trusted_hops`, `ipv4_prefix`,
            `ipv6_prefix`, `identifiers`, `cost`, `count_when`, `answer_cost`,
            `reserves`, `headers`, `retry_after_ms` and `logger`: see `RateLimitMiddleware`. Functions
            get the framework's request.

    Raises:
        InvalidInputError: If an option, a rule or a setting is wrong.
    """

    def __init__(
        self,
        *,
        rules: Rules | None = None,
        limiter: SyncTokenBucketAdapter | TokenBucketAdapter | None = None,
        path_readings: PathReadings = "exact",
        awaits: bool = False,
        **options: Unpack[RequestOptions],
    ) -> None:
        if limiter is not None and rules is not None:
            raise InvalidInputError("rules: expected none beside a limiter, which has its own")
        self._awaited: TokenBucketAdapter | None = None
        self._blocking: SyncTokenBucketAdapter | None = None
        if limiter is None:
            self._awaited, self._blocking = build_for_application(rules=rules, logger=options.get("logger"))
        elif isinstance(limiter, SyncTokenBucketAdapter):
            self._blocking = limiter
        elif awaits and isinstance(limiter, TokenBucketAdapter):
            self._awaited = limiter
        else:
            kind = "a SyncTokenBucketAdapter or a TokenBucketAdapter" if awaits else "a SyncTokenBucketAdapter"
            raise InvalidTypeError(f"limiter={limiter!r:.80}: expected {kind}")
        options.setdefault("trusted_proxies", None)
        self.requests = RequestLimiter(
            scopes=(limiter or self.limiter).scopes, path_readings=path_readings, awaits=awaits, **options
        )
        """What asks the limiter."""

    def __copy__(self) -> "EnvironLimiter":
        """Return the same one: what it knows of requests is fixed."""
        return self

    def __deepcopy__(self, _: object) -> "EnvironLimiter":
        """Return the same one, as `__copy__` does."""
        return self

    @property
    def limiter(self) -> SyncTokenBucketAdapter:
        """The limiter that blocks."""
        limiter = self._blocking
        assert limiter is not None  # noqa: S101 - only one who awaits may have none
        return limiter

    @property
    def any_limiter(self) -> SyncTokenBucketAdapter | TokenBucketAdapter:
        """The limiter, of whichever kind there is."""
        limiter = self._awaited if self._blocking is None else self._blocking
        assert limiter is not None  # noqa: S101 - there is one of either kind
        return limiter

    def check(  # noqa: PLR0913, PLR0917 - what a request is made of
        self,
        environ: Environ,
        path: str,
        route: str,
        subject: object,
        parameters: Mapping[str, object] | None = None,
        view: object = None,
    ) -> Decision | None:
        """Take a request's tokens; None if it is not counted. See `EnvironRequest` for the arguments."""
        return self.check_request(EnvironRequest(environ, path, route, subject, parameters, view))

    def report_unknown_routes(self, routes: Mapping[str, frozenset[str] | None]) -> None:
        """Log a warning about each rule that names no route; see `unknown_routes` for the argument."""
        for sentence in unknown_routes(self.any_limiter.rules.current().book, routes):
            self.requests.report(sentence)

    def check_request(self, request: EnvironRequest) -> Decision | None:
        """Take a request's tokens; None if it is not counted."""
        return self.requests.check_blocking(self.limiter, request)

    async def check_awaiting(self, request: EnvironRequest) -> Decision | None:
        """Do what `check_request` does without keeping the event loop waiting: a limiter that blocks does so in a thread."""
        if self._awaited is not None:
            return await self.requests.check(self._awaited, request)
        return await asyncio.to_thread(self.requests.check_blocking, self.limiter, request)

    def denial(self, environ: Environ, decision: Decision) -> DenialResponse:
        """Return the response to a denied request."""
        record: RequestRecord | None = environ.get(RECORD)
        if record is not None:
            record.told(decision)
        return self.requests.denial(decision)


class ResponseFields(Protocol):
    """A response's header fields as Flask and Django keep them: names match in any case."""

    def get(self, name: str, /) -> str | None:
        """Return a field's value; None if there is none."""
        ...

    def __setitem__(self, name: str, value: str, /) -> None: ...


def fields_to_send(environ: Environ) -> Headers:
    """Return what the client of a request is still to be told of its quota, by whatever limiters have decided about it."""
    record: RequestRecord | None = environ.get(RECORD)
    return () if record is None else record.fields_to_send()


def join_fields(headers: ResponseFields, fields: Headers) -> None:
    """Add fields to a response's, as the frameworks keep them: lists are continued, and others stay as they are.

    Args:
        headers: The response's fields, whose names match in any case.
        fields: What to add.
    """
    for name, value in fields:
        present = headers.get(name)
        if present is None:
            headers[name] = value
        elif is_list(name):
            headers[name] = f"{present}, {value}"


def add_absent(headers: ResponseFields, denial: DenialResponse) -> None:
    """Add the fields of a denial that the application's own answer leaves out, but those of the body."""
    for name, value in denial.headers:
        if name not in BODY_FIELDS and headers.get(name) is None:
            headers[name] = value
