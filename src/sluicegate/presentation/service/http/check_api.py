"""`POST /v1/check`: one check, or several that are decided together, in JSON."""

import math
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from sluicegate.application.check import Decision, decision_of
from sluicegate.application.joint_check import Part
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.service.endpoints import named_endpoint
from sluicegate.presentation.service.http.web import Call, Reply, decode, json_reply
from sluicegate.presentation.service.undecided import StorageUnavailableError
from sluicegate.presentation.web.headers import QuotaHeaders, retry_after_seconds

MAX_CHECKS: Final = 64

EndpointText = Annotated[str, Meta(description="The endpoint as the rules name it, such as 'POST /login'.")]
PathText = Annotated[
    str, Meta(description="In place of an endpoint: a path, which the rules' templates are matched with.")
]
MethodText = Annotated[str, Meta(description="The method that goes with the path; GET if there is none.")]
IdentifierText = Annotated[
    str | dict[str, str], Meta(description="The client: one text for all scopes, or one for each scope.")
]
CostNumber = Annotated[int, Meta(description="Tokens to take; 0: the rules' own cost.", ge=0, le=10**12)]


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An endpoint: its name, or a path in its place."""

    endpoint: EndpointText | UnsetType = UNSET
    path: PathText | UnsetType = UNSET
    method: MethodText = "GET"

    def named(self, rules: RulesSnapshot) -> str:
        """Return the endpoint that is meant.

        Raises:
            InvalidInputError: If there are two, or none.
        """
        return named_endpoint(rules, self.endpoint, self.path, self.method)


class One(Named, frozen=True, kw_only=True):
    """One check."""

    identifier: IdentifierText
    cost: CostNumber = 0


class OneOrSeveral(Named, frozen=True, kw_only=True):
    """One check, or several in `checks`: if one of them is denied none is charged."""

    identifier: IdentifierText | UnsetType = UNSET
    checks: Annotated[list[One], Meta(min_length=1, max_length=MAX_CHECKS)] | UnsetType = UNSET
    cost: CostNumber | dict[str, CostNumber] = 0

    def client(self) -> str | dict[str, str]:
        """Return the client's identifier.

        Raises:
            InvalidInputError: If that is not said.
        """
        if self.identifier is UNSET:
            raise InvalidInputError("body: expected the field identifier, or checks")
        return self.identifier

    def parts(self, rules: RulesSnapshot) -> list[Part] | None:
        """Return the checks; None if there is only one.

        Raises:
            InvalidInputError: If there are fields of one beside them, or one of them is wrong.
        """
        if self.checks is UNSET:
            return None
        if self.identifier is not UNSET or self.endpoint is not UNSET or self.path is not UNSET or self.cost:
            raise InvalidInputError("body: checks cannot be used with the fields of one check")
        return [Part(one.named(rules), one.identifier, one.cost) for one in self.checks]


class CheckBody(OneOrSeveral, frozen=True, kw_only=True):
    """One check, or several in `checks`: if one of them is denied none is charged."""


class CheckOutcome(msgspec.Struct, frozen=True):
    """What was decided.

    Args:
        allowed: Whether the request may pass.
        retry_after: Seconds until it would, 0 if it may; null: never.
        remaining: Whole tokens left.
        limit: The bucket's capacity; 0: no rule is for the endpoint.
        reset_seconds: Whole seconds until the bucket is full.
        policy: The name of the rule that this describes; null if there is none.
        degraded: The failure policy that answered in the storage's place; null: the storage decided.
        headers: Header fields for the client's response.
    """

    allowed: bool
    retry_after: float | None
    remaining: int
    limit: int
    reset_seconds: int
    policy: str | None
    degraded: str | None
    headers: dict[str, str]


class JointOutcome(msgspec.Struct, frozen=True):
    """What was decided of several checks.

    Args:
        allowed: Whether all of them are allowed, and have paid.
        checks: What was decided of each, in their order. One that is allowed while the whole is not has paid nothing.
    """

    allowed: bool
    checks: list[CheckOutcome]


class CheckApi:
    """Answer checks.

    Args:
        limiter: Decides them.
        quota: Writes the header fields.
        storage_errors: Whether what the storage did not decide is an error.
    """

    def __init__(self, limiter: TokenBucketAdapter, quota: QuotaHeaders, *, storage_errors: bool = False) -> None:
        self._limiter = limiter
        self._quota = quota
        self.storage_errors = storage_errors
        """Whether what the storage did not decide is an error."""

    async def check(self, call: Call) -> Reply:
        """Answer a check: status 200 whatever was decided."""
        body: CheckBody = decode(call.body, CheckBody)
        rules = self._limiter.current_rules()
        parts = body.parts(rules)
        if parts is None:
            decision = await self._limiter.check(
                endpoint=body.named(rules), identifier=body.client(), cost=body.cost, rules=rules
            )
            return json_reply(self.outcome(decision))
        joint = await self._limiter.check_together(parts, rules=rules)
        outcomes = [self.outcome(decision_of(check)) for check in joint.checks]
        return json_reply(JointOutcome(joint.allowed, outcomes))

    def outcome(self, decision: Decision) -> CheckOutcome:
        """Return what callers are told of a decision.

        Raises:
            StorageUnavailableError: If the storage did not make it, and callers want to know.
        """
        if self.storage_errors and decision.degraded is not None:
            raise StorageUnavailableError
        result = decision.result
        headers = dict(self._quota.build(decision))
        if not result.allowed:
            seconds = retry_after_seconds(result.retry_after)
            if seconds is not None:
                headers["retry-after"] = str(seconds)
        return CheckOutcome(
            allowed=result.allowed,
            retry_after=None if math.isinf(result.retry_after) else result.retry_after,
            remaining=result.remaining,
            limit=result.limit,
            reset_seconds=result.reset_seconds,
            policy=decision.binding.policy if decision.binding is not None else None,
            degraded=decision.degraded,
            headers=headers,
        )
