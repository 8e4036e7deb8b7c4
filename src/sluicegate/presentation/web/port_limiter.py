"""A limiter that has no more than the port, as the middleware asks it."""

from sluicegate.application.check import Decision
from sluicegate.domain.arguments import MAX_TEXT_BYTES, Identifier
from sluicegate.domain.compiled_rules import UNMATCHED
from sluicegate.domain.protocols import RateLimitProtocol
from sluicegate.domain.result import Success


class PortLimiter:
    """Ask any `RateLimitProtocol` by method and concrete path: it does not tell its rules.

    Args:
        limiter: The limiter.
        scopes: The scopes for which it gets identifiers.
    """

    def __init__(self, limiter: RateLimitProtocol, scopes: tuple[str, ...]) -> None:
        self._limiter = limiter
        self._scopes = scopes

    def match(self, method: str, path: str) -> str | None:
        """Return the method and the path, or `*` if they are longer than an endpoint may be."""
        endpoint = f"{method} {path}"
        return UNMATCHED if len(endpoint.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES else endpoint

    def match_every(self, _method: str, _path: str, _ignoring_case: bool, _empty_parameters: bool) -> list[str]:
        """Return nothing: which endpoints there are is not known."""
        return []

    def scopes_of(self, _endpoint: str) -> tuple[str, ...]:
        """Return the same scopes for every endpoint."""
        return self._scopes

    async def check(
        self,
        *,
        endpoint: str,
        identifier: Identifier,
        cost: int = 0,
        also: tuple[str, ...] = (),  # noqa: ARG002
    ) -> Decision | None:
        """Ask the limiter; None, so that the request passes, if it returns a `Failure`."""
        result = await self._limiter.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost)
        return Decision(result.value, (), None, None) if isinstance(result, Success) else None
