"""Who sent a request and what it costs: addresses, functions of the application, and the warnings about both."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, SupportsIndex, TypeAlias

from sluicegate.application.notifier import Notifier
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.protocols import LoggerProtocol
from sluicegate.domain.routing.template import A_MESSAGE
from sluicegate.presentation.web.identity.client_address import ClientAddresses
from sluicegate.presentation.web.identity.identifiers import (
    BY_ADDRESS,
    KNOWN_SCOPES,
    describe_nameless,
    identify,
    is_name,
    names_to_ask,
    provider_of,
    require_names,
)
from sluicegate.presentation.web.incoming_request import IncomingRequest
from sluicegate.presentation.web.routes.endpoint_finder import FoundEndpoints
from sluicegate.runtime.stdlib_logger import StdlibLogger
from sluicegate.runtime.system_clock import SystemClock

IdentifierFunction: TypeAlias = Callable[[Any], object]
"""Return the client's name as the application has verified it, a `str`, `int` or `UUID`, or None; it may be a coroutine function
where there is an event loop."""

CostFunction: TypeAlias = Callable[[Any], int | Awaitable[int]]
"""Return the tokens that a request takes; 0: none, it is free."""

RequestTest: TypeAlias = Callable[[Any], bool | Awaitable[bool]]
"""Return whether a request is one of some kind, such as one that is not counted."""


class FunctionCall:
    """A function of the application whose answer a check needs; `scope` is empty for the cost."""

    __slots__ = ("answer", "failed", "function", "scope")

    def __init__(self, scope: str, function: Callable[[Any], object]) -> None:
        self.scope = scope
        self.function = function
        self.answer: object = None
        self.failed = False


class Question:
    """What to ask the limiter about a request. The calls' answers are the only part that may have to be awaited."""

    __slots__ = ("address", "also", "calls", "cost", "endpoint", "free", "identifier", "provider", "scopes")

    def __init__(self, found: FoundEndpoints, scopes: tuple[str, ...], address: str | None, cost: int) -> None:
        self.endpoint = found.endpoint
        self.also = found.also
        self.scopes = scopes
        self.address = address
        self.cost = cost
        self.free = False
        self.identifier: Identifier | None = None
        self.provider = ""
        self.calls: list[FunctionCall] = []


class RequestReader:
    """Prepare the questions that a limiter is asked about requests.

    Args:
        scopes: The scopes that the rules count.
        addresses: Finds the client's address.
        identifiers: A function of the request for each scope that is not an address.
        identifier: A function of the request that names the client for all other scopes but `global`; None: there is none.
        cost: What a request takes, as a function of it; None: `fixed_cost`.
        fixed_cost: Tokens that each request takes; 0: the rule's own cost.
        awaits: Whether functions may be coroutine functions: there is an event loop.
        logger: Where warnings are logged; None: `logging.getLogger("sluicegate")`.

    Raises:
        InvalidInputError: If a scope has no function, or the cost is negative.
        InvalidTypeError: If something is not a function, or one that would have to be awaited, or the cost is no whole number.
    """

    def __init__(  # noqa: PLR0913 - options, given by name
        self,
        *,
        scopes: Iterable[str],
        addresses: ClientAddresses,
        identifiers: Mapping[str, IdentifierFunction] | None,
        identifier: IdentifierFunction | None,
        cost: CostFunction | None,
        fixed_cost: SupportsIndex,
        awaits: bool,
        logger: LoggerProtocol | None,
    ) -> None:
        self._identifiers: dict[str, IdentifierFunction] = dict(identifiers or {})
        named = {f"identifiers[{scope!r}]": function for scope, function in self._identifiers.items()}
        require_functions({**named, "identifier": identifier, "cost": cost}, awaits=awaits)
        self._identifier = identifier
        self.require_scopes(tuple(scopes))
        if type(fixed_cost) is not int:
            raise InvalidTypeError(f"cost={fixed_cost!r:.80}: expected a whole number or a function")
        if fixed_cost < 0:
            raise InvalidInputError(f"cost={fixed_cost}: expected 0 (the rule's own cost) or more")
        self._nameless: set[str] = set()
        self._counts_addresses = "ip" not in self._identifiers and identifier is None and cost is None
        self._cost = cost
        self._fixed_cost = fixed_cost
        self._addresses = addresses
        self._tells_of_strangers = True
        self._warns_of_proxy = not addresses.trusts_proxies
        self._notifier = Notifier(None, logger or StdlibLogger(), SystemClock(), log_identifiers=False)

    def question(self, found: FoundEndpoints, scopes: tuple[str, ...], request: IncomingRequest) -> Question:
        """Return what to ask about a request, with the functions that are still to be called.

        Args:
            found: The endpoints whose rules are asked.
            scopes: The scopes of these rules.
            request: The request.
        """
        question = Question(found, scopes, self._address(request), self._fixed_cost)
        if self._counts_addresses and scopes == BY_ADDRESS:
            question.identifier = question.address
            return question
        for name in names_to_ask(scopes):
            function = self._identifiers.get(name) or self._identifier
            if function is not None:
                question.calls.append(FunctionCall(name, function))
            elif name not in KNOWN_SCOPES:
                self._report_nameless(name)
        if self._cost is not None and request.method != A_MESSAGE:
            question.calls.append(FunctionCall("", self._cost))
        if "user_provider" in scopes:
            parameters = request.parameters
            if parameters is not None:
                question.provider = str(parameters.get("provider", ""))
            else:
                for endpoint, path in (found.paths or {found.endpoint: found.path}).items():
                    question.provider = question.provider or provider_of(endpoint, path)
        return question

    def complete(self, question: Question) -> Identifier | None:
        """Put the functions' answers into a question, and return its identifier; None if there is none."""
        identifier = question.identifier
        if identifier is None:
            named: dict[str, object] = {}
            for call in question.calls:
                if call.scope:
                    named[call.scope] = self._name(call)
                elif not call.failed:
                    self._put_cost(question, call.answer)
            identifier = identify(question.scopes, question.address, named, question.provider)
            if self._tells_of_strangers and "user" in question.scopes and named.get("user") is None:
                self._tells_of_strangers = False
                self._notifier.log(
                    "info",
                    "A rule counts users, and a request has none that is signed in: its address is counted. This is said once.",
                    endpoint=question.endpoint,
                )
        if identifier is None:
            self.warn(
                "no_address",
                "A request has no client address, so it cannot be counted; let pass. Behind a proxy on a Unix socket set"
                " trusted_proxies=('unix',).",
            )
        return identifier

    def require_scopes(self, scopes: Sequence[str]) -> None:
        """Check that every scope of some rules is a known one or has a function of the application.

        Raises:
            InvalidInputError: If one has none; the message names it.
        """
        if self._identifier is None:
            require_names(scopes, self._identifiers)

    def function_failed(self, call: FunctionCall, error: Exception) -> None:
        """Log that a function of the application raised; the address, or the rule's own cost, is taken in its place."""
        call.failed = True
        if call.scope:
            self.blame(f"identifier:{call.scope}", "An identifier function failed.", error)
        else:
            self.blame("cost", "A cost function failed; took the rule's cost.", error)

    def blame(self, reason: str, message: str, error: Exception | None = None) -> None:
        """Log an error of the application's, at most one a second for each reason."""
        self._notifier.warn_throttled(reason, message, error=error, level="error")

    def warn(self, reason: str, message: str, error: Exception | None = None) -> None:
        """Log a warning, at most one a second for each reason."""
        self._notifier.warn_throttled(reason, message, error=error)

    def report(self, message: str) -> None:
        """Log a warning about how the limiter is set up."""
        self._notifier.log("warning", message)

    def _report_nameless(self, scope: str) -> None:
        """Warn once that rules, which may have been reloaded, count a scope that nothing names."""
        if scope not in self._nameless:
            self._nameless.add(scope)
            self.report(f"{describe_nameless(scope, self._identifiers)}; its rules and lists count addresses.")

    def _address(self, request: IncomingRequest) -> str | None:
        addresses = self._addresses
        if addresses.trusts_proxies:
            return addresses.client(request.peer, request.header_lines(addresses.header))
        if self._warns_of_proxy and addresses.is_local(request.peer) and request.header_lines(addresses.header):
            self._warns_of_proxy = False
            self._notifier.log(
                "warning",
                "A local peer forwards requests of others, but trusted_proxies is empty: all clients of a proxy are counted"
                " as one. If it is your proxy, name its network.",
                header=addresses.header,
            )
        return addresses.client(request.peer)

    def _name(self, call: FunctionCall) -> object:
        """Return the client's name that a function gave; None, so that the address counts, where that is no name."""
        name = call.answer
        if is_name(name):
            return name
        self.blame(
            f"identifier:{call.scope}",
            f"An identifier function returned a {type(name).__name__}, expected str, int, UUID or None; took the address.",
        )
        return None

    def _put_cost(self, question: Question, cost: object) -> None:
        if type(cost) is int and cost >= 0:
            question.cost = cost
            question.free = cost == 0
            return
        self.blame("cost", f"A cost function returned {cost!r:.80}, no whole number from 0 on; took the rule's cost.")


def require_functions(functions: Mapping[str, object], *, awaits: bool = True) -> None:
    """Check that options that are given are functions.

    Args:
        functions: What was given, by the option's name.
        awaits: Whether they may be coroutine functions.

    Raises:
        InvalidTypeError: If one is neither callable nor None, or would have to be awaited; the message names it.
    """
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise InvalidTypeError(f"{name}={function!r:.80}: expected a function")
        if not awaits and returns_coroutine(function):
            raise InvalidTypeError(f"{name}={function!r:.80}: a coroutine function, and there is no event loop here")


def returns_coroutine(function: Any) -> bool:  # noqa: ANN401 - whatever the application gave
    """Return whether a function, a partial of one, or an object that can be called has to be awaited."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
