"""The calls of the admin API. Each that changes something is told to observers, whether it was done or not."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeAlias

from sluicegate.application.check import Decision
from sluicegate.application.rules.operator_changes import override_states, switch_states
from sluicegate.application.token_bucket_adapter import TokenBucketAdapter
from sluicegate.domain.errors import InvalidInputError, RateLimitError
from sluicegate.domain.events import RateLimitAdministered
from sluicegate.domain.result import Failure, Result
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book_entries import Override
from sluicegate.presentation.service.admin.bodies import (
    BucketBody,
    Done,
    OverrideBody,
    OverrideKey,
    RulesState,
    State,
    SwitchBody,
)
from sluicegate.presentation.service.http.check_api import CheckApi
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply, decode, json_reply
from sluicegate.presentation.web.headers import QuotaHeaders
from sluicegate.runtime.system_clock import utc_now

Peers: TypeAlias = Callable[[Call], Awaitable[None]]
"""Passes a call on to the other processes of the service, where it changes what is in a process's memory."""


class AdminApi:
    """Carry out the calls.

    Args:
        limiter: The limiter.
        reload: Reads the rules again, puts them into force and returns their version.
        peers: Passes calls on; None: there are no other processes.
        tells: Whether calls are told to observers; not where they only came from another process.
    """

    def __init__(
        self, limiter: TokenBucketAdapter, reload: Callable[[], str], peers: Peers | None = None, *, tells: bool = True
    ) -> None:
        self._limiter = limiter
        self._tells = tells
        self._reload = reload
        self._peers = peers
        self._checks = CheckApi(limiter, QuotaHeaders("none"))

    def endpoints(self) -> list[Endpoint]:
        """Return the routes."""
        return [
            Endpoint("POST", "/v1/remaining", self.remaining),
            Endpoint("POST", "/v1/explain", self.explain),
            Endpoint("POST", "/v1/reset", self.reset),
            Endpoint("POST", "/v1/refund", self.refund),
            Endpoint("GET", "/v1/rules", self.rules),
            Endpoint("GET", "/v1/state", self.state),
            Endpoint("POST", "/v1/reload", self.reload),
            Endpoint("POST", "/v1/switch-off", self.switch_off),
            Endpoint("POST", "/v1/switch-on", self.switch_on),
            Endpoint("POST", "/v1/override", self.override),
            Endpoint("POST", "/v1/take-back-override", self.take_back_override),
        ]

    async def remaining(self, call: Call) -> Reply:
        """Tell what a check would answer now, and change nothing."""
        body: BucketBody = decode(call.body, BucketBody)
        answer = await self._limiter.peek(endpoint=body.endpoint, identifier=body.identifier, cost=body.cost)
        if isinstance(answer, Failure):
            return _failed(answer.error)
        return json_reply(self._checks.outcome(Decision(answer.value)))

    async def explain(self, call: Call) -> Reply:
        """Tell why a check would be answered as it would be now, and change nothing."""
        body: BucketBody = decode(call.body, BucketBody)
        return json_reply(
            await self._limiter.explain(endpoint=body.endpoint, identifier=body.identifier, cost=body.cost)
        )

    async def reset(self, call: Call) -> Reply:
        """Fill buckets."""
        body: BucketBody = decode(call.body, BucketBody)
        result = await self._limiter.reset(endpoint=body.endpoint, identifier=body.identifier)
        return self._settled(call, "reset", body, result)

    async def refund(self, call: Call) -> Reply:
        """Put tokens back."""
        body: BucketBody = decode(call.body, BucketBody)
        result = await self._limiter.refund(endpoint=body.endpoint, identifier=body.identifier, cost=body.cost)
        return self._settled(call, "refund", body, result, f"cost={body.cost or 'own'}")

    async def rules(self, _: Call) -> Reply:
        """Tell which rules are in force."""
        rules = self._limiter.rules
        return json_reply(
            RulesState(
                version=rules.version,
                changes=rules.changes,
                refusals=rules.refusals,
                last_error=rules.last_error,
                switched_off=switch_states(rules.switched_off),
                overrides=override_states(rules.added_overrides),
                rules=rules.book.content(),
            )
        )

    async def state(self, _: Call) -> Reply:
        """Tell what operators changed while the service runs, for a process that begins."""
        rules = self._limiter.rules
        return json_reply(State(switch_states(rules.thrown), override_states(rules.added_overrides)))

    async def reload(self, call: Call) -> Reply:
        """Read the rules again; if they are invalid those before stay in force."""
        try:
            version = self._reload()
        except InvalidInputError as error:
            self._record(call, "reload", done=False, detail=str(error))
            return json_reply(Done(done=False, reason="invalid", message=str(error)), 422)
        await self._pass_on(call)
        self._record(call, "reload", detail=f"rules version {version}")
        return json_reply(Done(done=True, message=f"rules version {version}"))

    async def switch_off(self, call: Call) -> Reply:
        """Throw a kill switch."""
        body: SwitchBody = decode(call.body or b"{}", SwitchBody)
        self._limiter.rules.switch_off(body.policy, for_seconds=body.for_seconds, reason=body.reason)
        await self._pass_on(call)
        self._record(call, "switch_off", detail=f"{body.policy or 'everything'}: {body.reason}")
        return json_reply(Done(done=True, message=f"{body.policy or 'everything'} is switched off"))

    async def switch_on(self, call: Call) -> Reply:
        """Take a kill switch back."""
        body: SwitchBody = decode(call.body or b"{}", SwitchBody)
        self._limiter.rules.switch_on(body.policy)
        await self._pass_on(call)
        self._record(call, "switch_on", detail=body.policy or "everything")
        return json_reply(Done(done=True, message=f"{body.policy or 'everything'} holds again"))

    async def override(self, call: Call) -> Reply:
        """Add an override that ends by itself."""
        body: OverrideBody = decode(call.body, OverrideBody)
        override = _override(self._limiter.rules.named_rule(body.policy), body)
        self._limiter.rules.override(override)
        await self._pass_on(call)
        detail = f"{body.policy}: {body.rate or 'no limit'} for {body.for_seconds:g} s: {body.reason}"
        self._record(call, "override", identifier=body.identifier, detail=detail)
        return json_reply(
            Done(done=True, message=f"{body.policy} is {body.rate or 'without limit'} for {body.identifier}")
        )

    async def take_back_override(self, call: Call) -> Reply:
        """Remove an override that was added."""
        body: OverrideKey = decode(call.body, OverrideKey)
        found = self._limiter.rules.take_back_override(body.policy, body.identifier)
        await self._pass_on(call)
        self._record(call, "take_back_override", identifier=body.identifier, done=found, detail=body.policy)
        if not found:
            return json_reply(Done(done=False, reason="no_override", message="No such override was added."), 404)
        return json_reply(Done(done=True, message="the rule's own limit holds again"))

    async def _pass_on(self, call: Call) -> None:
        if self._peers is not None:
            await self._peers(call)

    def _settled(
        self, call: Call, action: str, body: BucketBody, result: Result[None, RateLimitError], detail: str = ""
    ) -> Reply:
        error = result.error if isinstance(result, Failure) else None
        identifier = (
            body.identifier
            if isinstance(body.identifier, str)
            else ", ".join([f"{scope}={name}" for scope, name in body.identifier.items()])
        )
        self._record(
            call,
            action,
            endpoint=body.endpoint,
            identifier=identifier,
            done=error is None,
            detail=detail if error is None else error.message,
        )
        return json_reply(Done(done=True)) if error is None else _failed(error)

    def _record(  # noqa: PLR0913 - the fields of the event
        self, call: Call, action: str, *, endpoint: str = "", identifier: str = "", done: bool = True, detail: str = ""
    ) -> None:
        if not self._tells:
            return
        self._limiter.record(
            RateLimitAdministered(
                action=action,
                actor=call.peer or "unix",
                endpoint=endpoint,
                identifier=identifier,
                done=done,
                detail=detail,
            )
        )


def _failed(error: RateLimitError) -> Reply:
    return json_reply(
        Done(done=False, reason=error.reason, message=error.message), 404 if error.reason == "no_rule" else 503
    )


def _override(rule: RateLimitRule, body: OverrideBody) -> Override:
    """Return the override that a body describes.

    Raises:
        InvalidInputError: If its rate is invalid.
    """
    if body.rate:
        instead = RateLimitRule.parse(body.rate, scope=rule.scope)
    else:
        instead = RateLimitRule(rule.max_tokens, rule.refill_rate, rule.scope, enabled=False)
    until = utc_now() + timedelta(seconds=body.for_seconds)
    return Override(policy=body.policy, identifier=body.identifier, rule=instead, until=until, reason=body.reason)
