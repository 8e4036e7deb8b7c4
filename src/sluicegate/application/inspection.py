"""The questions of operators, which change nothing: why a check is answered as it is, and whether the storage answers."""

from collections.abc import Awaitable, Callable, Sequence
from fractions import Fraction
from typing import Final

from sluicegate.application.administration import Administration
from sluicegate.application.explained_check import ExplainedCheck, explained, unexplained
from sluicegate.application.failure_policy import reason_of
from sluicegate.domain.arguments import Cost, Identifier
from sluicegate.domain.buckets.bucket_request import BucketLevel, BucketRequest
from sluicegate.domain.buckets.bucket_spec import bucket_spec

_PROBE: Final = BucketRequest("sluicegate:probe", bucket_spec(1, Fraction(1)), 0)


class Inspection:
    """Answer them.

    Args:
        administration: Knows which buckets are meant.
        look: Asks the storage for the levels of buckets, and keeps the deadline.
    """

    def __init__(
        self,
        administration: Administration,
        look: Callable[[Sequence[BucketRequest]], Awaitable[tuple[BucketLevel, ...]]],
    ) -> None:
        self._administration = administration
        self._look = look

    async def explain(self, endpoint: str, identifier: Identifier, cost: Cost) -> ExplainedCheck:
        """Tell which rules a check asks, why, and what their buckets hold now.

        Raises:
            InvalidInputError: If an argument is wrong.
        """
        check, explanation = self._administration.begin_explanation(endpoint, identifier, cost)
        levels: tuple[BucketLevel, ...] = ()
        if check.requests:
            try:
                levels = await self._look(check.requests)
                self._administration.finish_peek(check, levels)
            except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
                return unexplained(explanation, error)
        return explained(explanation, check, levels)

    async def storage_fault(self) -> str | None:
        """Return why the storage does not answer, in one word; None if it does. Looks at one bucket."""
        try:
            await self._look((_PROBE,))
        except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
            return reason_of(error)
        return None
