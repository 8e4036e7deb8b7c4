"""Which rules would apply to a request, with which keys and limits, and why. It asks what the limiter asks."""

from datetime import datetime
from typing import Literal

import msgspec

from sluicegate.application.check import Check, ShadowedCheck, prepare, request_for
from sluicegate.application.lists_and_overrides import ListAnswer, identifier_for
from sluicegate.application.live_rules import RulesSnapshot
from sluicegate.domain.bucket_key import KeyFormat
from sluicegate.domain.compiled_rules import EndpointRules, Limit
from sluicegate.domain.identifier_index import Now
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.rule import RateLimitRule
from sluicegate.domain.rule_book import UNMATCHED, Bound, KillSwitch

Outcome = Literal["checked", "allowed", "denied", "impossible", "no_rule"]
"""What becomes of the request: its buckets decide, a list or switched-off rules let it pass, a list denies it, it costs more than
a bucket holds, or no rule is for it."""

Effect = Literal["decides", "watches", "off", "overruled"]
"""What a rule does: decide, watch in shadow mode, nothing because it is off, or nothing because a list decides."""


class ExplainedRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, as it is for one request.

    Args:
        policy: The rule's name.
        effect: What it does.
        why: Why it is here, and why it is as it is.
        scope: Whom it counts.
        identifier: Who asks, as far as this rule is concerned; empty for a global rule.
        key: The bucket's key; empty where it is off.
        max_tokens: The capacity.
        refill_rate: Tokens a minute.
        cost: Tokens that the request takes.
    """

    policy: str
    effect: Effect
    why: tuple[str, ...]
    scope: str
    identifier: str = ""
    key: str = ""
    max_tokens: int
    refill_rate: float
    cost: int


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What the limiter would do with a request.

    Args:
        endpoint: What was asked about.
        matched: The endpoint as the rules name it, `*` for the rules of unmatched endpoints; None: no rule.
        outcome: What becomes of it.
        why: Why that.
        rules: The rules, in the order in which they are asked.
        rules_version: The version of the rules.
    """

    endpoint: str
    matched: str | None
    outcome: Outcome
    why: str
    rules: tuple[ExplainedRule, ...]
    rules_version: str


class Explainer:
    """Explain what the limiter would do with requests.

    Args:
        state: The rules in force.
        key_format: How buckets are named.
        now: The wall clock.
    """

    def __init__(self, state: RulesSnapshot, key_format: KeyFormat, now: Now) -> None:
        self._state = state
        self._key_format = key_format
        self._now = now

    def explain(self, endpoint: str, identifier: Identifier, cost: int = 0) -> Explanation:
        """Explain one request; arguments as in a check.

        Raises:
            InvalidInputError: What the check would raise.
        """
        state = self._state
        prepared = prepare(state.rules, self._key_format, endpoint, identifier, cost, now=self._now)
        endpoint_rules = state.rules.find(endpoint)
        outcome, why = self._outcome(prepared)
        rules: list[ExplainedRule] = []
        if endpoint_rules is not None:
            rules = [
                self._rule(bound, endpoint_rules, identifier, cost)
                for bound in state.book.bound(endpoint_rules.endpoint)
            ]
        if isinstance(prepared, ListAnswer):
            rules = [
                rule if rule.effect == "off" else msgspec.structs.replace(rule, effect="overruled") for rule in rules
            ]
        return Explanation(
            endpoint=endpoint,
            matched=None if endpoint_rules is None else endpoint_rules.endpoint,
            outcome=outcome,
            why=why,
            rules=tuple(rules),
            rules_version=state.book.version,
        )

    def _outcome(self, prepared: Check | ShadowedCheck | ListAnswer | EndpointRules | None) -> tuple[Outcome, str]:
        if prepared is None:
            return "no_rule", "no rule is for this endpoint, and there is none for unmatched ones"
        if isinstance(prepared, ListAnswer):
            which = "allow" if prepared.result.allowed else "deny"
            listing = prepared.listing
            why = f"the {which} list has {listing.scope} {listing.identifier}{_until(listing.until)}{_because(listing.reason)}"
            return ("allowed" if prepared.result.allowed else "denied"), why
        if isinstance(prepared, Check) or (isinstance(prepared, ShadowedCheck) and prepared.check is not None):
            return "checked", "all of the rules that decide must have the tokens"
        endpoint_rules = prepared.endpoint_rules if isinstance(prepared, ShadowedCheck) else prepared
        if endpoint_rules.disabled is None:
            return "impossible", f"it costs more than the smallest bucket holds, {endpoint_rules.max_cost}"
        switch = next((switch for switch in self._state.switches if not switch.policies), None)
        if switch is not None:
            return "allowed", f"the kill switch is thrown{_until(switch.until)}{_because(switch.reason)}"
        return "allowed", "none of its rules may deny"

    def _rule(self, bound: Bound, endpoint_rules: EndpointRules, identifier: Identifier, cost: int) -> ExplainedRule:
        rule = bound.rule
        why = [_why_here(bound, endpoint_rules)]
        limit_ = _meter_of(bound, endpoint_rules)
        if limit_ is None:
            why.append(_why_off(rule, self._state.switches))
            return _described(rule, "off", why, cost)
        name = identifier_for(limit_, identifier)
        substitute = limit_.overrides.find(name, self._now) if limit_.overrides is not None else None
        if substitute is not None:
            override = substitute.override
            why.append(f"an override is for {override.identifier}{_until(override.until)}{_because(override.reason)}")
            if substitute.limit_ is None:
                return _described(rule, "off", why, cost)
            limit_ = substitute.limit_
        described = _described(limit_.rule, "watches" if limit_.rule.shadow else "decides", why, cost)
        key = request_for(self._key_format, limit_, identifier, 0).key
        return msgspec.structs.replace(described, key=key, identifier="" if limit_.after is None else name)


def _described(rule: RateLimitRule, effect: Effect, why: list[str], cost: int) -> ExplainedRule:
    return ExplainedRule(
        policy=rule.policy,
        effect=effect,
        why=tuple(why),
        scope=str(rule.scope),
        max_tokens=rule.max_tokens,
        refill_rate=rule.refill_rate,
        cost=cost or rule.cost,
    )


def _meter_of(bound: Bound, endpoint_rules: EndpointRules) -> Limit | None:
    for limit_ in (*endpoint_rules.limits, *endpoint_rules.shadows):
        if limit_.rule is bound.rule and limit_.bucket == bound.bucket:
            return limit_
    return None


def _why_here(bound: Bound, endpoint_rules: EndpointRules) -> str:
    if endpoint_rules.endpoint == UNMATCHED:
        return "the rules of unmatched endpoints"
    if bound.bucket != endpoint_rules.endpoint:
        return f"the endpoint is in the group {bound.bucket}"
    return f"the endpoint {endpoint_rules.endpoint} names it"


def _why_off(rule: RateLimitRule, switches: tuple[KillSwitch, ...]) -> str:
    for switch in switches:
        if not switch.policies or rule.policy in switch.policies:
            return f"a kill switch is thrown{_until(switch.until)}{_because(switch.reason)}"
    return "enabled = false"


def _until(until: datetime | None) -> str:
    return "" if until is None else f" until {until.isoformat()}"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
