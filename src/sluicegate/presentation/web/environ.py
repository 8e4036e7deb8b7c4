"""What WSGI, Flask, Django and REST framework share: requests that carry CGI's environment, and a limiter that is called."""

from collections.abc import Mapping
from typing import Any, TypeAlias, Unpack

from sluicegate.application.check import Decision
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.container import build_sync_rate_limit
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rule_book import Rules
from sluicegate.infrastructure.settings import read_settings
from sluicegate.presentation.web.endpoint_finder import PathReadings
from sluicegate.presentation.web.headers import DenialResponse, Headers
from sluicegate.presentation.web.incoming_request import IncomingRequest
from sluicegate.presentation.web.named_routes import unknown_routes
from sluicegate.presentation.web.request_limiter import RequestLimiter, RequestOptions

Environ: TypeAlias = Mapping[str, Any]
"""The environment of WSGI (PEP 3333), which Flask's and Django's requests carry as well."""


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
    """

    __slots__ = ("_environ",)

    def __init__(
        self,
        environ: Environ,
        path: str,
        route: str,
        subject: object,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        method = str(environ.get("REQUEST_METHOD", "GET")).upper()
        peer = environ.get("REMOTE_ADDR")
        super().__init__(method, path, route, peer if isinstance(peer, str) else None, subject, parameters)
        self._environ = environ

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
        options: `exempt`, `trusted_proxies`, `forwarded_header`, `ipv4_prefix`, `ipv6_prefix`, `identifiers`, `cost`, `headers`
            and `logger`: see `RateLimitMiddleware`. Functions get the framework's request; they are plain functions.

    Raises:
        InvalidInputError: If an option, a rule or a setting is wrong.
    """

    def __init__(
        self,
        *,
        rules: Rules | None = None,
        limiter: SyncTokenBucketAdapter | None = None,
        path_readings: PathReadings = "exact",
        **options: Unpack[RequestOptions],
    ) -> None:
        if limiter is not None and rules is not None:
            raise InvalidInputError("rules: expected none beside a limiter, which has its own")
        if limiter is not None and not isinstance(limiter, SyncTokenBucketAdapter):
            raise InvalidTypeError(f"limiter={limiter!r:.80}: expected a SyncTokenBucketAdapter")
        self._limiter = limiter or build_sync_rate_limit(read_settings(), rules=rules, logger=options.get("logger"))
        self.requests = RequestLimiter(scopes=self._limiter.scopes, path_readings=path_readings, **options)
        """Asks the limiter about requests."""

    def check(self, environ: Environ, path: str, route: str, subject: object) -> Decision | None:
        """Take a request's tokens; None if it is not counted. See `EnvironRequest` for the arguments."""
        return self.requests.check_blocking(self._limiter, EnvironRequest(environ, path, route, subject))

    def report_unknown_routes(self, routes: Mapping[str, frozenset[str] | None]) -> None:
        """Log a warning about each rule that names no route; see `unknown_routes` for the argument."""
        for sentence in unknown_routes(self._limiter.rules.current().book, routes):
            self.requests.report(sentence)

    def headers(self, decision: Decision) -> Headers:
        """Return the header fields for a response to a request that passed."""
        return self.requests.headers(decision)

    def denial(self, decision: Decision) -> DenialResponse:
        """Return the response to a denied request."""
        return self.requests.denial(decision)
