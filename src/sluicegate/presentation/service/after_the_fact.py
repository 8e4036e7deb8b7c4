"""Charge what was used already: into debt if need be, since refusing would not undo it."""

from collections.abc import Sequence

from sluicegate.application.joint_check import Part
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidTypeError
from sluicegate.domain.result import Failure, RateLimitResult, Success

_TTL_SECONDS = 10.0


class AfterTheFact:
    """Charge buckets for what was done.

    Args:
        limiter: The limiter.
    """

    def __init__(self, limiter: TokenBucketAdapter) -> None:
        self._limiter = limiter

    async def charge(self, parts: Sequence[Part]) -> list[RateLimitResult]:
        """Charge each part its cost, whatever becomes of the others, and return what is left.

        More than is left is charged as debt, as far as the rules allow; a bucket that is in debt already is not charged
        again. Where the storage cannot keep debts, or a part brings its own rule, it is charged only if the tokens are there.
        """
        return [await self._charge(part) for part in parts]

    async def _charge(self, part: Part) -> RateLimitResult:
        joint = await self._limiter.check_together((part,))
        result = joint.checks[0].result
        assert result is not None  # noqa: S101 - the check is done
        if joint.allowed or part.rule is not None or not part.cost:
            return result
        try:
            reserved = await self._limiter.reserve(
                endpoint=part.endpoint, identifier=part.identifier, cost=1, ttl_seconds=_TTL_SECONDS
            )
        except InvalidTypeError:
            return result
        match reserved:
            case Success(value=reservation) if reservation.allowed:
                settled = await self._limiter.commit(reservation, cost=part.cost)
                return result if isinstance(settled, Failure) else reservation.result
            case _:
                return result
