"""The decision on a request for frameworks without an event loop: what WSGI, Flask and Django share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from sluicegate.application.checked import Checked
from sluicegate.application.failure_policy import describe
from sluicegate.application.notifier import Notifier
from sluicegate.application.sync_token_bucket_adapter import SyncTokenBucketAdapter
from sluicegate.container import build_sync_rate_limit
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.compiled_rules import Rules
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.protocols import LoggerProtocol
from sluicegate.infrastructure.settings import read_settings
from sluicegate.presentation.web.client_address import ClientAddresses, ForwardedHeader
from sluicegate.presentation.web.headers import (
    Denial,
    Headers,
    HeaderStyle,
    denial,
    quota_headers,
    require_style,
)
from sluicegate.presentation.web.identifiers import (
    BY_ADDRESS,
    EVERYBODY,
    Exemptions,
    identify,
    needed_names,
    provider_of,
    require_names,
)
from sluicegate.runtime.stdlib_logger import StdlibLogger
from sluicegate.runtime.system_clock import SystemClock

Environ: TypeAlias = Mapping[str, Any]
"""WSGI's environment, which Flask's and Django's requests carry as well."""


class RequestLimiter:
    """Decide on requests.

    Args:
        rules: Endpoints and their rules; None: the rules file of the settings.
        limiter: What decides; built from the settings and the rules if None.
        exempt: Paths that are not counted: exactly (`/health`) or with all below them (`/static/*`).
        trusted_proxies: See `ClientAddresses`.
        forwarded_header: Where these proxies write whom they speak for.
        ipv4_prefix: Bits of an IPv4 address that tell clients apart.
        ipv6_prefix: Bits of an IPv6 address that do.
        identifiers: A function of the framework's request for each scope that is not an address.
        cost: What a request takes, as a function of the framework's request; None: its rule's cost.
        headers: Which fields tell clients of their quota.
        logger: Who is told of what went wrong; None: `logging.getLogger("sluicegate")`.

    Raises:
        InvalidInputError: If an argument, a rule or a setting is wrong.
    """

    def __init__(  # noqa: PLR0913 - options, given by name
        self,
        *,
        rules: Rules | None = None,
        limiter: SyncTokenBucketAdapter | None = None,
        exempt: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        forwarded_header: ForwardedHeader = "x-forwarded-for",
        ipv4_prefix: int = 32,
        ipv6_prefix: int = 64,
        identifiers: Mapping[str, Callable[[Any], object]] | None = None,
        cost: Callable[[Any], int] | None = None,
        headers: HeaderStyle = "draft-11",
        logger: LoggerProtocol | None = None,
    ) -> None:
        if limiter is not None and rules is not None:
            raise InvalidInputError("rules: expected none beside a limiter, which has its own")
        if limiter is not None and not isinstance(limiter, SyncTokenBucketAdapter):
            raise InvalidTypeError(f"limiter={limiter!r:.80}: expected a SyncTokenBucketAdapter")
        self._limiter = limiter or build_sync_rate_limit(read_settings(), rules=rules, logger=logger)
        self._exempt = Exemptions(exempt)
        self._addresses = ClientAddresses(
            trusted_proxies, header=forwarded_header, ipv4_prefix=ipv4_prefix, ipv6_prefix=ipv6_prefix
        )
        self._header = "HTTP_" + self._addresses.header.upper().replace("-", "_")
        self._identifiers = dict(identifiers or {})
        self._ip_is_address = "ip" not in self._identifiers
        require_names(self._limiter.scopes, self._identifiers)
        self._cost = cost
        self._style: HeaderStyle = require_style(headers)
        self._notifier = Notifier(None, logger or StdlibLogger(), SystemClock(), log_identifiers=False)

    def check(self, environ: Environ, path: str, route: str, request: Any) -> Checked | None:  # noqa: ANN401 - a framework's
        """Return the limiter's answer; None if there is nothing to count.

        Args:
            environ: WSGI's environment.
            path: The path, decoded, without the query.
            route: What names the route in rules: its template as the framework writes it, or the path where the framework
                has none.
            request: What functions of the application get.
        """
        method = str(environ.get("REQUEST_METHOD", "GET")).upper()
        if path in self._exempt or (method == "OPTIONS" and _is_preflight(environ)):
            return None
        try:
            endpoint = self._limiter.match(method, route)
            if endpoint is None:
                return None
            scopes = self._limiter.scopes_of(endpoint)
            address = self._addresses.client(environ.get("REMOTE_ADDR"), _lines(environ.get(self._header)))
            if scopes == BY_ADDRESS and self._ip_is_address:
                identifier: Identifier | None = address  # what most rules count, on a short way
            else:
                identifier = self._identify(scopes, address, endpoint, path, request)
            if identifier is None:
                self._notifier.warn_throttled("no_address", "A request has no client address; let pass uncounted.")
                return None
            return self._limiter.check(endpoint=endpoint, identifier=identifier, cost=self._cost_of(request))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the client's fault
            self._notifier.warn_throttled("bug", "A request was not counted; let pass.", error=describe(error))
            return None

    def _identify(
        self,
        scopes: tuple[str, ...],
        address: str | None,
        endpoint: str,
        path: str,
        request: Any,  # noqa: ANN401 - a framework's
    ) -> Identifier | None:
        if not scopes:
            return EVERYBODY
        named = {name: self._name(name, request) for name in needed_names(scopes) if name in self._identifiers}
        provider = provider_of(endpoint, path) if "user_provider" in scopes else ""
        return identify(scopes, address, named, provider)

    def fields(self, checked: Checked) -> Headers:
        """Return the fields for a response to a request that passed."""
        return quota_headers(checked, self._style)

    def denial(self, checked: Checked) -> Denial:
        """Return the response to a request that did not."""
        return denial(checked, self._style)

    def _name(self, name: str, request: Any) -> object:  # noqa: ANN401 - a framework's
        try:
            return self._identifiers[name](request)
        except Exception as error:  # noqa: BLE001 - the address stands in for whom the application cannot name
            self._notifier.warn_throttled(f"identifier:{name}", "An identifier function failed.", error=describe(error))
            return None

    def _cost_of(self, request: Any) -> int:  # noqa: ANN401 - a framework's
        if self._cost is None:
            return 0
        try:
            number: object = self._cost(request)
        except Exception as error:  # noqa: BLE001 - a client that makes it fail gets no free pass by it
            self._notifier.warn_throttled(
                "cost", "A cost function failed; took the rule's cost.", error=describe(error)
            )
            return 0
        return number if type(number) is int and number >= 0 else 0


def _lines(value: object) -> list[str]:
    return [value] if isinstance(value, str) else []


def _is_preflight(environ: Environ) -> bool:
    return "HTTP_ORIGIN" in environ and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
