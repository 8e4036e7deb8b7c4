"""A limiter that has no more than the port, as the middleware asks it."""

from sluicegate.application.check import Decision
from sluicegate.domain.arguments import MAX_TEXT_BYTES, Identifier
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.protocols import RateLimitProtocol
from sluicegate.domain.result import Failure, RateLimitResult, Result, Success
from sluicegate.domain.routing.template import A_MESSAGE
from sluicegate.domain.rules.compiled_rules import UNMATCHED, Keys
from sluicegate.domain.rules.rule import RateLimitRule


class PortLimiter:
    """Ask any `RateLimitProtocol` by method and concrete path: it does not tell its rules.

    Args:
        limiter: The limiter.
        scopes: The scopes for which it gets identifiers.
    """

    def __init__(self, limiter: RateLimitProtocol, scopes: tuple[str, ...]) -> None:
        self._limiter = limiter
        self._scopes = scopes

    def current_rules(self) -> "PortLimiter":
        """Return the limiter itself: its rules are not told."""
        return self

    def match(self, method: str, path: str) -> str | None:
        """Return the method and the path, or `*` if they are longer than an endpoint may be; None for a websocket's message."""
        if method == A_MESSAGE:  # whether a rule names it is not known
            return None
        endpoint = f"{method} {path}"
        return UNMATCHED if len(endpoint.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES else endpoint

    def match_every(self, _method: str, _path: str, _ignoring_case: bool, _empty_parameters: bool) -> list[str]:
        """Return nothing: which endpoints there are is not known."""
        return []

    def match_served(self, method: str, path: str, _route: frozenset[str], _routes: frozenset[str]) -> str | None:
        """Return what `match` returns: the limiter does not ask for routes."""
        return self.match(method, path)

    def scopes_of(self, _endpoint: str) -> tuple[str, ...]:
        """Return the same scopes for every endpoint."""
        return self._scopes

    def rules_of(self, _endpoint: str) -> tuple[RateLimitRule, ...]:
        """Return none: they are not told."""
        return ()

    def keys_of(self, _endpoint: str) -> Keys:
        """Return none: they are not told."""
        return {}

    def counts_calls(self, _endpoint: str, _also: tuple[str, ...]) -> bool:
        """Return False: the port has no calls in flight."""
        return False

    def ask_lists(self, *, endpoint: str, identifier: Identifier, rules: "PortLimiter") -> Decision | None:
        """Return None: whether it has lists is not told."""

    async def peek(self, *, endpoint: str, identifier: Identifier) -> Result[RateLimitResult, RateLimitError]:
        """Ask how many tokens are left; nothing else is told."""
        left = await self._limiter.get_remaining(endpoint=endpoint, identifier=identifier)
        if isinstance(left, Failure):
            return left
        return Success(RateLimitResult(True, 0.0, left.value, left.value, 0))  # noqa: FBT003 - the verdict

    async def check(
        self,
        *,
        endpoint: str,
        identifier: Identifier,
        cost: int = 0,
        also: tuple[str, ...] = (),  # noqa: ARG002
        rules: "PortLimiter | None" = None,  # noqa: ARG002
    ) -> Decision | None:
        """Ask the limiter; None, so that the request passes, if it returns a `Failure`."""
        result = await self._limiter.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)
        return Decision(result.value, (), None, None) if isinstance(result, Success) else None
