"""What every framework does with a request: find its endpoint, client and cost, ask the limiter, and word the answer.

The faces differ in how they read a request and send an answer, and in whether they wait: `check` awaits the limiter and the
application's functions, `check_blocking` calls them. All else is here once.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Protocol, SupportsIndex, TypedDict

from sluicegate.application.check import Decision
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.protocols import LoggerProtocol
from sluicegate.presentation.web.client_address import ClientAddresses, ForwardedHeader
from sluicegate.presentation.web.endpoint_finder import EndpointFinder, FoundEndpoints, PathReadings, Routes
from sluicegate.presentation.web.headers import DenialResponse, Headers, HeaderStyle, QuotaHeaders, build_denial
from sluicegate.presentation.web.incoming_request import Exemptions, IncomingRequest
from sluicegate.presentation.web.request_reader import CostFunction, IdentifierFunction, Question, RequestReader


class RequestOptions(TypedDict, total=False):
    """The options of `RequestLimiter` that frameworks pass on, with their types."""

    exempt: Iterable[str]
    trusted_proxies: Iterable[str]
    forwarded_header: ForwardedHeader
    ipv4_prefix: int
    ipv6_prefix: int
    identifiers: Mapping[str, IdentifierFunction] | None
    cost: CostFunction | None
    headers: HeaderStyle
    logger: LoggerProtocol | None


class AwaitedLimiter(Routes, Protocol):
    """What `check` needs of a limiter, such as `TokenBucketAdapter`."""

    async def check(
        self, *, endpoint: str, identifier: Identifier, cost: int = 0, also: tuple[str, ...] = ()
    ) -> Decision | None:
        """Take tokens; None if there is nothing to tell."""
        ...


class BlockingLimiter(Routes, Protocol):
    """What `check_blocking` needs of a limiter, such as `SyncTokenBucketAdapter`."""

    def check(self, *, endpoint: str, identifier: Identifier, cost: int = 0, also: tuple[str, ...] = ()) -> Decision:
        """Take tokens."""
        ...


class RequestLimiter:
    """Ask a limiter about requests, and word its answers.

    Args:
        scopes: The scopes that the rules count.
        exempt: Paths that are not counted: exact ones (`/health`) or with all below them (`/static/*`).
        path_readings: See `PathReadings`.
        trusted_proxies: See `ClientAddresses`. Empty: the peer's address is the client's.
        forwarded_header: The header in which these proxies name their clients.
        ipv4_prefix: Bits of an IPv4 address that tell clients apart.
        ipv6_prefix: Bits of an IPv6 address that do.
        identifiers: A function of the request for each scope that is not an address.
        cost: What a request takes, as a function of it; None: `fixed_cost`.
        fixed_cost: Tokens that each request takes; 0: the rule's own cost.
        headers: Which header fields tell clients of their quota.
        logger: Where warnings are logged; None: `logging.getLogger("sluicegate")`.

    Raises:
        InvalidInputError: If an argument is wrong, or a scope has no function.
    """

    def __init__(  # noqa: PLR0913 - options, given by name
        self,
        *,
        scopes: Iterable[str] = (),
        exempt: Iterable[str] = (),
        path_readings: PathReadings = "exact",
        trusted_proxies: Iterable[str] = (),
        forwarded_header: ForwardedHeader = "x-forwarded-for",
        ipv4_prefix: SupportsIndex = 32,
        ipv6_prefix: SupportsIndex = 64,
        identifiers: Mapping[str, IdentifierFunction] | None = None,
        cost: CostFunction | None = None,
        fixed_cost: SupportsIndex = 0,
        headers: HeaderStyle = "draft-11",
        logger: LoggerProtocol | None = None,
    ) -> None:
        self.endpoints = EndpointFinder(Exemptions(exempt), path_readings)
        """Finds the endpoints of requests."""
        self._quota = QuotaHeaders(headers)
        self._reader = RequestReader(
            scopes=scopes,
            addresses=ClientAddresses(
                trusted_proxies, header=forwarded_header, ipv4_prefix=ipv4_prefix, ipv6_prefix=ipv6_prefix
            ),
            identifiers=identifiers,
            cost=cost,
            fixed_cost=fixed_cost,
            logger=logger,
        )

    async def check(
        self, limiter: AwaitedLimiter, request: IncomingRequest, endpoint: str | None = None
    ) -> Decision | None:
        """Take a request's tokens.

        Args:
            limiter: The limiter.
            request: The request.
            endpoint: The endpoint whose rules are asked; None: those that the request's method and path belong to.

        Returns:
            The limiter's decision; None if the request is not counted: exempt, without a rule, or because something failed.
        """
        try:
            question = self._ask(limiter, request, endpoint)
            if question is None:
                return None
            for call in question.calls:
                try:
                    answer = call.function(request.subject)
                    call.answer = await answer if inspect.isawaitable(answer) else answer
                except Exception as error:  # noqa: BLE001 - a client that makes it fail is counted all the same
                    self._reader.function_failed(call, error)
            identifier = self._reader.complete(question)
            if identifier is None:
                return None
            return await limiter.check(
                endpoint=question.endpoint, identifier=identifier, cost=question.cost, also=question.also
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the client's fault
            self._not_counted(error)
            return None

    def check_blocking(
        self, limiter: BlockingLimiter, request: IncomingRequest, endpoint: str | None = None
    ) -> Decision | None:
        """Take a request's tokens where there is no event loop. Arguments and result are those of `check`."""
        try:
            question = self._ask(limiter, request, endpoint)
            if question is None:
                return None
            for call in question.calls:
                try:
                    call.answer = call.function(request.subject)
                except Exception as error:  # noqa: BLE001 - a client that makes it fail is counted all the same
                    self._reader.function_failed(call, error)
            identifier = self._reader.complete(question)
            if identifier is None:
                return None
            return limiter.check(
                endpoint=question.endpoint, identifier=identifier, cost=question.cost, also=question.also
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the client's fault
            self._not_counted(error)
            return None

    def headers(self, decision: Decision) -> Headers:
        """Return the header fields that tell of the quota, for a response of any status."""
        return self._quota.build(decision)

    def denial(self, decision: Decision) -> DenialResponse:
        """Return the response to a denied request."""
        return build_denial(decision, self._quota)

    def warn(self, reason: str, message: str, error: Exception) -> None:
        """Log a warning about what the application raised, at most one a second for each reason."""
        self._reader.warn(reason, message, error)

    def report(self, message: str) -> None:
        """Log a warning about how the limiter is set up."""
        self._reader.report(message)

    def _ask(self, limiter: Routes, request: IncomingRequest, endpoint: str | None) -> Question | None:
        """Return what to ask; None if the request is not counted."""
        if endpoint is not None:
            found: FoundEndpoints | None = FoundEndpoints(endpoint, request.path)
        elif request.method == "OPTIONS" and request.is_preflight():
            return None
        else:
            found = self.endpoints.find(limiter, request)
        if found is None:
            return None
        scopes = limiter.scopes_of(found.endpoint)
        if found.paths is not None:
            scopes = tuple(dict.fromkeys([scope for one in found.paths for scope in limiter.scopes_of(one)]))
        return self._reader.question(found, scopes, request)

    def _not_counted(self, error: Exception) -> None:
        self.warn("bug", "A request was not counted; let pass.", error)
