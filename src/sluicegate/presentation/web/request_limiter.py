"""What every framework does with a request: find its endpoint, client and cost, ask the limiter, and word the answer.

The faces differ in how they read a request and send an answer, and in whether they wait: `check` awaits the limiter and the
application's functions, `check_blocking` calls them. All else is here once.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsIndex, TypedDict

from sluicegate.application.check import NO_RULE, Decision
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.errors import InvalidTypeError
from sluicegate.domain.protocols import LoggerProtocol
from sluicegate.domain.routing.template import A_MESSAGE
from sluicegate.presentation.web.answer import AnswerCost, AnswerReader, AnswerTest
from sluicegate.presentation.web.asked_limiter import AskedLimiter, AwaitedLimiter, BlockingLimiter, R
from sluicegate.presentation.web.claiming import Claiming
from sluicegate.presentation.web.headers import DenialResponse, Headers, HeaderStyle, QuotaHeaders, build_denial
from sluicegate.presentation.web.identity.client_address import ForwardedHeader
from sluicegate.presentation.web.identity.proxy_settings import client_addresses
from sluicegate.presentation.web.incoming_request import Exemptions, IncomingRequest, is_exempt
from sluicegate.presentation.web.request_reader import (
    CostFunction,
    IdentifierFunction,
    Question,
    RequestReader,
    RequestTest,
    require_functions,
)
from sluicegate.presentation.web.request_record import RECORD, RecordEntry, RequestRecord, record_in
from sluicegate.presentation.web.routes.endpoint_finder import EndpointFinder, FoundEndpoints, PathReadings, Routes


class RequestOptions(TypedDict, total=False):
    """The options of `RequestLimiter` that frameworks pass on, with their types."""

    exempt: Iterable[str]
    exempt_when: RequestTest | None
    enabled: bool
    trusted_proxies: Iterable[str] | None
    forwarded_header: ForwardedHeader
    trusted_hops: int
    ipv4_prefix: int
    ipv6_prefix: int
    identifiers: Mapping[str, IdentifierFunction] | None
    cost: CostFunction | None
    count_when: AnswerTest | None
    answer_cost: AnswerCost | None
    reserves: bool
    headers: HeaderStyle
    retry_after_ms: bool
    logger: LoggerProtocol | None


class RequestLimiter:
    """Ask a limiter about requests, and word its answers.

    Args:
        scopes: The scopes that the rules count.
        exempt: Paths that are not counted: exact ones (`/health`) or with all below them (`/static/*`).
        path_readings: See `PathReadings`.
        exempt_when: Returns whether a request is not counted; None: all others are.
        enabled: False: no request is counted.
        trusted_proxies: See `ClientAddresses`. Empty: the peer's address is the client's. None: the settings say these, the
            header and the hops.
        forwarded_header: The header in which these proxies name their clients.
        trusted_hops: How many proxies a request passes; 0: not counted.
        ipv4_prefix: Bits of an IPv4 address that tell clients apart.
        ipv6_prefix: Bits of an IPv6 address that do.
        identifiers: A function of the request for each scope that is not an address.
        identifier: A function of the request for all scopes that `identifiers` has none for; None: there is none.
        cost: What a request takes, as a function of it; None: `fixed_cost`.
        fixed_cost: Tokens that each request takes; 0: the rule's own cost.
        count_when: See `AnswerReader`, whose arguments these three are.
        answer_cost: What a request cost in the end. `cost` is what it may cost then, which is reserved.
        reserves: Whether the cost is reserved until the application commits it.
        headers: Which header fields tell clients of their quota.
        retry_after_ms: Whether denials also carry `Retry-After-Ms`, in milliseconds.
        awaits: Whether functions may be coroutine functions: there is an event loop.
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
        exempt_when: RequestTest | None = None,
        enabled: bool = True,
        trusted_proxies: Iterable[str] | None = (),
        forwarded_header: ForwardedHeader = "x-forwarded-for",
        trusted_hops: SupportsIndex = 0,
        ipv4_prefix: SupportsIndex = 32,
        ipv6_prefix: SupportsIndex = 64,
        identifiers: Mapping[str, IdentifierFunction] | None = None,
        identifier: IdentifierFunction | None = None,
        cost: CostFunction | None = None,
        fixed_cost: SupportsIndex = 0,
        count_when: AnswerTest | None = None,
        answer_cost: AnswerCost | None = None,
        reserves: bool = False,
        headers: HeaderStyle = "draft-11",
        retry_after_ms: bool = False,
        awaits: bool = True,
        logger: LoggerProtocol | None = None,
    ) -> None:
        for name, flag in (("enabled", enabled), ("retry_after_ms", retry_after_ms)):
            if type(flag) is not bool:
                raise InvalidTypeError(f"{name}={flag!r:.80}: expected True or False")
        require_functions({"exempt_when": exempt_when}, awaits=awaits)
        self.endpoints = EndpointFinder(Exemptions(exempt), path_readings)
        """Finds the endpoints of requests."""
        self._enabled = enabled
        self._exempt_when = exempt_when
        self._quota = QuotaHeaders(headers, retry_after_ms=retry_after_ms)
        self._reader = RequestReader(
            scopes=scopes,
            addresses=client_addresses(trusted_proxies, forwarded_header, trusted_hops, ipv4_prefix, ipv6_prefix),
            identifiers=identifiers,
            identifier=identifier,
            cost=cost,
            fixed_cost=fixed_cost,
            awaits=awaits,
            logger=logger,
        )
        self.reserves = count_when is not None or answer_cost is not None or reserves
        """Whether it reserves what requests cost, until their answers are known."""
        self._claiming = Claiming(AnswerReader(count_when, answer_cost, reserves), self._reader.blame)

    def __copy__(self) -> "RequestLimiter":
        """Return the same one: what it knows of requests is fixed."""
        return self

    def __deepcopy__(self, _: object) -> "RequestLimiter":
        """Return the same one, as `__copy__` does."""
        return self

    async def check(  # noqa: C901 - one way, in its order
        self, limiter: AwaitedLimiter[R], request: IncomingRequest, endpoint: str | None = None
    ) -> Decision | None:
        """Take a request's tokens.

        Args:
            limiter: The limiter.
            request: The request.
            endpoint: The endpoint whose rules are asked; None: those that the request's method and path belong to.

        Returns:
            The limiter's decision; None if the request is not counted: exempt, without a rule, or because something failed.
        """
        decision: Decision | None = None
        try:
            if self._claiming.wanted:
                self._claiming.offer(request)
            if self._exempt_when is not None and await self._is_exempt(self._exempt_when, request):
                return None
            rules = limiter.current_rules()
            question = self._ask(rules, request, endpoint)
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
            decision = self._known(limiter, rules, request, question, identifier)
            if decision is None:
                claims = self._claiming.wanted or rules.counts_calls(question.endpoint, question.also)
                if claims and request.method != A_MESSAGE:
                    decision = await self._claiming.claim(limiter, rules, request, question, identifier)
                else:
                    decision = await limiter.check(
                        endpoint=question.endpoint,
                        identifier=identifier,
                        cost=question.cost,
                        also=question.also,
                        rules=rules,
                    )
                if decision is not None:
                    if decision.never_fits:
                        decision = decision.with_left(
                            await limiter.peek(endpoint=question.endpoint, identifier=identifier)
                        )
                    self._note(limiter, rules, request, question, identifier, decision)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the client's fault
            self.warn("bug", "A request was not counted; let pass.", error)
        return decision

    def check_blocking(  # noqa: C901 - as in `check`
        self, limiter: BlockingLimiter[R], request: IncomingRequest, endpoint: str | None = None
    ) -> Decision | None:
        """Take a request's tokens where there is no event loop. Arguments and result are those of `check`."""
        decision: Decision | None = None
        try:
            if self._claiming.wanted:
                self._claiming.offer(request)
            if self._exempt_when is not None and self._is_exempt_blocking(self._exempt_when, request):
                return None
            rules = limiter.current_rules()
            question = self._ask(rules, request, endpoint)
            if question is None:
                return None
            for call in question.calls:
                try:
                    call.answer = require_plain(call.function(request.subject))
                except Exception as error:  # noqa: BLE001 - a client that makes it fail is counted all the same
                    self._reader.function_failed(call, error)
            identifier = self._reader.complete(question)
            if identifier is None:
                return None
            decision = self._known(limiter, rules, request, question, identifier)
            if decision is None:
                if self._claiming.wanted or rules.counts_calls(question.endpoint, question.also):
                    decision = self._claiming.claim_blocking(limiter, rules, request, question, identifier)
                else:
                    decision = limiter.check(
                        endpoint=question.endpoint,
                        identifier=identifier,
                        cost=question.cost,
                        also=question.also,
                        rules=rules,
                    )
                if decision.never_fits:
                    decision = decision.with_left(limiter.peek(endpoint=question.endpoint, identifier=identifier))
                self._note(limiter, rules, request, question, identifier, decision)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the client's fault
            self.warn("bug", "A request was not counted; let pass.", error)
        return decision

    def headers(self, decision: Decision) -> Headers:
        """Return the header fields that tell of the quota, for a response of any status."""
        return self._quota.build(decision)

    def denial(self, decision: Decision) -> DenialResponse:
        """Return the response to a denied request."""
        return build_denial(decision, self._quota)

    def require_scopes(self, scopes: Sequence[str]) -> None:
        """Check that clients can be named for some rules' scopes.

        Raises:
            InvalidInputError: If one has no function; the message names it.
        """
        self._reader.require_scopes(scopes)

    def warn(self, reason: str, message: str, error: Exception) -> None:
        """Log what the application raised, as an error, at most one a second for each reason."""
        self._reader.blame(reason, message, error)

    async def _is_exempt(self, exempt_when: RequestTest, request: IncomingRequest) -> bool:
        try:
            answer = exempt_when(request.subject)
            return bool(await answer if inspect.isawaitable(answer) else answer)
        except Exception as error:  # noqa: BLE001 - a client that makes it fail is counted all the same
            self.warn("exempt_when", "exempt_when failed; the request counts.", error)
            return False

    def _is_exempt_blocking(self, exempt_when: RequestTest, request: IncomingRequest) -> bool:
        try:
            return bool(require_plain(exempt_when(request.subject)))
        except Exception as error:  # noqa: BLE001 - a client that makes it fail is counted all the same
            self.warn("exempt_when", "exempt_when failed; the request counts.", error)
            return False

    def report(self, message: str) -> None:
        """Log a warning about how the limiter is set up."""
        self._reader.report(message)

    def _ask(self, rules: Routes, request: IncomingRequest, endpoint: str | None) -> Question | None:
        """Return what to ask; None if the request is not counted."""
        if not self._enabled or is_exempt(request.view):
            return None
        if request.method == "OPTIONS" and endpoint is None and request.is_preflight():
            return None
        given = None if endpoint is None else FoundEndpoints(endpoint, request.path)
        found = given or self.endpoints.find(rules, request)
        if found is None:
            return None
        scopes = rules.scopes_of(found.endpoint)
        if found.paths is not None:
            scopes = tuple(dict.fromkeys([scope for one in found.paths for scope in rules.scopes_of(one)]))
        return self._reader.question(found, scopes, request)

    def _known(
        self,
        limiter: AskedLimiter[R],
        rules: R,
        request: IncomingRequest,
        question: Question,
        identifier: Identifier,
    ) -> Decision | None:
        """Return what is decided already: by a list, for a free request; or by the same rules, for the same request."""
        record: RequestRecord | None = None if request.notes is None else request.notes.get(RECORD)
        if record is not None:
            for entry in record.entries:
                if entry.answers(limiter, rules, question.endpoint, question.also, identifier, question.cost):
                    return entry.decision
        if question.free:
            listed = limiter.ask_lists(endpoint=question.endpoint, identifier=identifier, rules=rules)
            return Decision(NO_RULE) if listed is None else listed
        return None

    def _note(  # noqa: PLR0913, PLR0917 - what a check is
        self,
        limiter: AskedLimiter[R],
        rules: R,
        request: IncomingRequest,
        question: Question,
        identifier: Identifier,
        decision: Decision,
    ) -> None:
        notes = request.notes
        if notes is None:
            return
        record_in(notes).add(
            RecordEntry(
                limiter,
                rules,
                question.endpoint,
                question.also,
                identifier,
                question.cost,
                decision,
                self._quota.build(decision),
            ),
            self.report,
        )


def require_plain(answer: object) -> object:
    """Return what a function returned where nothing can be awaited.

    Raises:
        InvalidTypeError: If it would have to be awaited.
    """
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise InvalidTypeError("returned what has to be awaited, and there is no event loop here")
    return answer
