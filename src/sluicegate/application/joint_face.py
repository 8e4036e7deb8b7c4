"""Several checks, or several reservations, that are decided together: for callers with an event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sluicegate.application.budgets.joint_reservation import JointClaim, JointReservation
from sluicegate.application.budgets.joint_settlement import CostOfParts, JointExtension, JointSettlement
from sluicegate.application.budgets.reservation_face import AsyncReservationFace, claim_blocking, claim_one, present
from sluicegate.application.budgets.reservations import Reservations
from sluicegate.application.budgets.timed_reservations import reservations_of
from sluicegate.application.check import Check
from sluicegate.application.checker import Checker
from sluicegate.application.joint_check import JointCheck, Part
from sluicegate.application.limiter_face import decide
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.arguments import Seconds
from sluicegate.domain.buckets.bucket_request import BucketRequest, Verdict
from sluicegate.domain.claims.reservation import Settlement
from sluicegate.domain.errors import RateLimitError
from sluicegate.domain.protocols import StorageProtocol, SyncReservationStorage
from sluicegate.domain.result import Result
from sluicegate.runtime.patient_timeout import PatientTimeout

T = TypeVar("T")


class JointFace(AsyncReservationFace):
    """Decide several checks or reservations together.

    Args:
        checker: See `AsyncFace`.
        reservations: See `AsyncReservationFace`.
        storage: Where the buckets are.
        deadline_s: The longest that a call of a storage may take that keeps no deadline itself.
    """

    def __init__(
        self, checker: Checker, reservations: Reservations, storage: StorageProtocol, deadline_s: float
    ) -> None:
        # A deadline has one owner: the storage if it keeps one, else a timer here round each call.
        traits = storage.traits
        timed = traits.deadline_s is None
        super().__init__(
            checker,
            self._take_in_time if timed else storage.take,
            reservations,
            reservations_of(storage, deadline_s if timed else None),
            storage if traits.never_waits and isinstance(storage, SyncReservationStorage) else None,
        )
        self._storage = storage
        self._deadline_s = deadline_s

    async def check_together(
        self,
        parts: Sequence[Part],
        *,
        denied: bool = False,
        timeout_s: float | None = None,
        rules: RulesSnapshot | None = None,
    ) -> JointCheck:
        """Decide several checks together: if one is denied none is charged.

        Args:
            parts: The checks.
            denied: Whether the whole is denied already: then the buckets are only looked at.
            timeout_s: The longest that it may take, where that is less than the limiter's deadline.
            rules: As in `check`.

        Returns:
            Its checks have their answers; while the storage fails, those of the failure policy.

        Raises:
            InvalidInputError: If an argument is wrong; nothing has changed then.
        """
        joint = self.begin_together(parts, denied=denied, rules=rules)
        if joint.waits:
            await self.complete_together(joint, timeout_s)
        return joint

    def begin_together(
        self, parts: Sequence[Part], *, denied: bool = False, rules: RulesSnapshot | None = None
    ) -> JointCheck:
        """Do as much of `check_together` as needs no waiting; if the joint check `waits`, `complete_together` does the rest."""
        return self._checker.begin_together(parts, denied=denied, rules=rules)

    async def complete_together(self, joint: JointCheck, timeout_s: float | None = None) -> None:
        """Ask the storage for what a joint check waits for; see `check_together`."""
        shadows = [shadow for check in joint.checks for shadow in check.shadows if shadow.is_open]
        try:
            async with asyncio.timeout(timeout_s):  # the caller has given up by then, however busy this process is
                await asyncio.gather(
                    self._ask_questions(joint, self._take), *[decide(shadow, self._take) for shadow in shadows]
                )
        except TimeoutError as error:
            joint.fail(error)
            for shadow in shadows:
                if shadow.is_open:
                    shadow.error = error
        self._checker.finish_together(joint)

    async def reserve_together(
        self,
        parts: Sequence[Part],
        *,
        ttl_seconds: Seconds,
        timeout_s: float | None = None,
        rules: RulesSnapshot | None = None,
    ) -> JointReservation:
        """Reserve the tokens of several parts, in one call of the storage: if one is denied none is taken.

        Args:
            parts: What to reserve; their verbs are `take`, and none has a rule of its own.
            ttl_seconds: As in `reserve`.
            timeout_s: As in `check_together`.
            rules: As in `check`.

        Returns:
            While the storage fails, what the failure policy answers; a denial leaves nothing reserved then either.

        Raises:
            InvalidInputError: If an argument is wrong; nothing has changed then.
            InvalidTypeError: If the storage has no reservations.
        """
        claim = JointClaim(self._reservations, parts, ttl_seconds, self._checker.current() if rules is None else rules)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(
                    self._ask_questions(claim.joint, lambda requests: self._claim_together(claim, requests)),
                    *[self._claim_alone(shadow) for shadow in claim.shadows],
                )
        except TimeoutError as error:
            claim.fail(error)
        self._checker.finish_together(claim.joint)
        return claim.conclude()

    async def commit_together(
        self, reservation: str, *, cost: CostOfParts = None, timeout_s: float | None = None
    ) -> Result[tuple[Settlement, ...], RateLimitError]:
        """Charge what the parts of a joint reservation really cost, in one call of the storage.

        Args:
            reservation: The id that `reserve_together` gave.
            cost: As in `commit`, for all parts; or a list with one for each part.
            timeout_s: As in `check_together`.

        Returns:
            The settlement of each part, or the first failure; see `commit`. What can be settled is, whatever becomes of the rest.

        Raises:
            InvalidInputError: If an argument is wrong; nothing has changed then.
            InvalidTypeError: If the storage has no reservations.
        """
        settlement = JointSettlement(self._reservations, reservation, cost)
        for call in settlement.calls:
            try:
                async with asyncio.timeout(timeout_s):
                    if self._never_waits is not None:
                        answers = self._never_waits.settle_blocking(call.requests, call.number, call.numbers)
                    else:
                        answers = await present(self._awaited).settle(call.requests, call.number, call.numbers)
            except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
                settlement.fail(call, error)
            else:
                settlement.answer(call, answers)
        return settlement.result

    async def extend_together(self, reservation: str, *, ttl_seconds: Seconds) -> Result[None, RateLimitError]:
        """Let the parts of a joint reservation end later, in one call of the storage; see `extend`.

        Args:
            reservation: The id that `reserve_together` gave.
            ttl_seconds: As in `extend`.

        Raises:
            InvalidInputError: If an argument is wrong.
            InvalidTypeError: If the storage has no reservations.
        """
        extension = JointExtension(self._reservations, reservation, ttl_seconds)
        for call in extension.calls:
            try:
                if self._never_waits is not None:
                    count = self._never_waits.extend_blocking(call.requests, call.number, call.numbers)
                else:
                    count = await present(self._awaited).extend(call.requests, call.number, call.numbers)
            except Exception as error:  # noqa: BLE001 - reported to the caller, whatever it was
                extension.fail(call, error)
            else:
                extension.answer(call, count)
        return extension.result

    async def _ask_questions(
        self, joint: JointCheck, take: Callable[[Sequence[BucketRequest]], Awaitable[Verdict]]
    ) -> None:
        try:
            while (question := joint.question) is not None:
                verb, requests = question
                if verb == "take":
                    joint.answer(await take(requests))
                else:
                    call = self._storage.peek if verb == "peek" else self._storage.refund
                    joint.answer(Verdict(allowed=True, levels=await self._in_time(call, requests)))
        except Exception as error:  # noqa: BLE001 - `Checker.finish_together` makes it an answer
            joint.fail(error)

    async def _claim_together(self, claim: JointClaim, requests: Sequence[BucketRequest]) -> Verdict:
        terms = claim.terms_of(requests)
        if self._never_waits is not None:
            return self._never_waits.reserve_blocking(requests, claim.number, terms)
        return await present(self._awaited).reserve(requests, claim.number, terms)

    async def _claim_alone(self, shadow: Check) -> None:
        if self._never_waits is not None:
            claim_blocking(shadow, self._never_waits)
        else:
            await claim_one(shadow, present(self._awaited))

    async def _take_in_time(self, requests: Sequence[BucketRequest], /) -> Verdict:
        return await self._in_time(self._storage.take, requests)

    async def _in_time(
        self, call: Callable[[Sequence[BucketRequest]], Awaitable[T]], requests: Sequence[BucketRequest]
    ) -> T:
        if self._storage.traits.deadline_s is not None:
            return await call(requests)
        async with PatientTimeout(self._deadline_s):
            return await call(requests)
