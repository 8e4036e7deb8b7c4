"""Which rules would apply to a request, with which keys and limits, and why. It asks what the limiter asks."""

from datetime import datetime
from typing import Final, Literal

import msgspec

from sluicegate.application.check import Check, prepare, requests_for
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.arguments import Identifier
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.routing.readings import EXACT, readings_of
from sluicegate.domain.routing.template import A_MESSAGE, MESSAGE
from sluicegate.domain.rules.compiled_rules import EndpointRules, Limit
from sluicegate.domain.rules.identifier_index import WallClock
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import UNMATCHED
from sluicegate.domain.rules.rule_book_entries import Bound, KillSwitch

Outcome = Literal["checked", "allowed", "denied", "impossible", "no_rule"]
"""What becomes of the request: its buckets decide, a list or switched-off rules let it pass, a list denies it, it costs more than
a bucket holds, or no rule is for it."""

Effect = Literal["decides", "watches", "off", "overruled"]
"""What a rule does: decide, watch in shadow mode, nothing because it is off, or nothing because a list decides."""

_BESIDE_CODE: Final = "it stands beside the code of the endpoint"


class ExplainedRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, as it is for one request.

    Args:
        policy: The rule's name.
        effect: What it does.
        why: Why it is here, and why it is as it is.
        scope: What it counts by.
        identifier: The client's identifier in the rule's scope; empty for a global rule.
        key: The bucket's key; empty where it is off.
        max_tokens: The capacity.
        refill_rate: Tokens a minute.
        cost: Tokens that the request takes.
        hold_seconds: Of a rule of calls in flight: how long one counts unless it is ended or renewed.
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
    hold_seconds: float | None = None


class MatchedReading(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that a request belongs to where the application's router is not known.

    Args:
        endpoint: The endpoint as the rules name it.
        reading: How its path has to be read: `exact`, `slashes merged`, …
    """

    endpoint: str
    reading: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What the limiter would do with a request.

    Args:
        endpoint: What was asked about.
        matched: The endpoint as the rules name it, `*` for the rules of unmatched endpoints; None: no rule.
        outcome: What becomes of it.
        why: Why that.
        rules: The rules, in the order in which they are asked.
        rules_version: The version of the rules.
        readings: The endpoints that a middleware counts the request under if it reads paths in every way; see `PathReadings`.
    """

    endpoint: str
    matched: str | None
    outcome: Outcome
    why: str
    rules: tuple[ExplainedRule, ...]
    rules_version: str
    readings: tuple[MatchedReading, ...] = ()


class Explainer:
    """Explain what the limiter would do with requests.

    Args:
        snapshot: The rules in force.
        key_format: How buckets are named.
        now: The wall clock.
    """

    def __init__(self, snapshot: RulesSnapshot, key_format: KeyFormat, now: WallClock) -> None:
        self._snapshot = snapshot
        self._key_format = key_format
        self._now = now

    def explain(
        self,
        endpoint: str,
        identifier: Identifier,
        cost: int = 0,
        *,
        every_reading: bool = False,
        beside_code: bool = False,
    ) -> Explanation:
        """Explain one request; arguments as in a check.

        Args:
            endpoint: The endpoint.
            identifier: The client.
            cost: Tokens to take; 0: the rules' own cost.
            every_reading: Whether the rules are those of all readings of the path, as middlewares count them where the router
                is not known; if not, those that `is_allowed` asks.
            beside_code: Whether rules that stand beside the code of the endpoint are explained as well.

        Raises:
            InvalidInputError: What the check would raise.
        """
        snapshot = self._snapshot
        readings = _readings(snapshot, endpoint)
        names = [one.endpoint for one in readings] if every_reading and readings else [endpoint]
        check = prepare(
            snapshot.rules,
            self._key_format,
            names[0],
            identifier,
            cost,
            self._now,
            also=tuple(names[1:]),
            beside_code=beside_code,
        )
        outcome, why = self._outcome(check)
        several = [one for one in map(snapshot.rules.find, names) if one is not None]
        matched = several[0] if several else check.rules
        keys: set[tuple[str, str]] = set()
        rules: list[ExplainedRule] = []
        for one in several:
            for bound in snapshot.book.bound(one.endpoint):
                rule = self._rule(bound, one, check.identifier, cost)
                if not rule.key or (rule.key, rule.policy) not in keys:  # a bucket that endpoints share is asked once
                    keys.add((rule.key, rule.policy))
                    rules.append(rule)
        if beside_code and check.rules is not None:
            for limit in (*check.rules.claimed.limits, *check.rules.shadows):
                rule = self._rule(Bound(limit.rule, limit.bucket), check.rules, check.identifier, cost, _BESIDE_CODE)
                if (rule.key, rule.policy) not in keys:
                    rules.append(rule)
        if check.listed is not None:
            rules = [
                rule if rule.effect == "off" else msgspec.structs.replace(rule, effect="overruled") for rule in rules
            ]
        return Explanation(
            endpoint=endpoint,
            matched=matched.endpoint if matched is not None else None,
            outcome=outcome,
            why=why,
            rules=tuple(rules),
            rules_version=snapshot.book.version,
            readings=readings,
        )

    def _outcome(self, check: Check) -> tuple[Outcome, str]:
        if check.listed is not None:
            which = "allow" if check.listed.result.allowed else "deny"
            listing = check.listed.listing
            why = f"the {which} list has {listing.scope} {listing.identifier}{_until(listing.until)}{_because(listing.reason)}"
            return ("allowed" if check.listed.result.allowed else "denied"), why
        if check.rules is None:
            return "no_rule", "no rule is for this endpoint, and there is none for unmatched ones"
        if check.requests:
            return "checked", "all of the rules that decide must have the tokens"
        if check.rules.disabled is None:
            return "impossible", f"it costs more than the smallest bucket holds, {check.rules.max_cost}"
        switch = next((switch for switch in self._snapshot.switches if not switch.policies), None)
        if switch is not None:
            return "allowed", f"the kill switch is thrown{_until(switch.until)}{_because(switch.reason)}"
        return "allowed", "none of its rules may deny"

    def _rule(
        self,
        bound: Bound,
        compiled: EndpointRules,
        identifier: str | dict[str, str],
        cost: int,
        why_here: str = "",
    ) -> ExplainedRule:
        rule = bound.rule
        why = [why_here or _why_here(bound, compiled)]
        limit = _limit_of(bound, compiled)
        if limit is None:
            why.append(_why_off(rule, self._snapshot.switches))
            return _described(rule, "off", why, cost)
        name = limit.identifier_of(identifier)
        substitute = limit.overrides.find(name, self._now) if limit.overrides is not None else None
        if substitute is not None:
            override = substitute.override
            why.append(f"an override is for {override.identifier}{_until(override.until)}{_because(override.reason)}")
            if substitute.limit is None:
                return _described(rule, "off", why, cost)
            limit = substitute.limit
        described = _described(limit.rule, "watches" if limit.rule.shadow else "decides", why, cost)
        key = requests_for((limit,), self._key_format, identifier, 0)[0].key
        return msgspec.structs.replace(described, key=key, identifier="" if limit.after is None else name)


def _readings(snapshot: RulesSnapshot, endpoint: str) -> tuple[MatchedReading, ...]:
    """Return the endpoints of all readings of a path; empty for a name that the rules have, or that is no method and path."""
    method, space, path = endpoint.partition(" ")
    if endpoint in snapshot.book or not space or not path:
        return ()
    method = A_MESSAGE if method == MESSAGE else method
    found: dict[str, str] = {}
    exact = snapshot.rules.match(method, path)
    if exact is not None and exact != UNMATCHED:
        found[exact] = EXACT
    for name, read in readings_of(path):
        for one in snapshot.rules.match_every(method, read, ignoring_case=False, empty_parameters=True):
            found.setdefault(one, "another router's order or parameters" if name == EXACT else name)
    if exact == UNMATCHED and snapshot.rules.unmatched is not None:
        found[UNMATCHED] = EXACT
    return tuple([MatchedReading(endpoint=one, reading=name) for one, name in found.items()])


def _described(rule: RateLimitRule, effect: Effect, why: list[str], cost: int) -> ExplainedRule:
    return ExplainedRule(
        policy=rule.policy,
        effect=effect,
        why=tuple(why),
        scope=str(rule.scope),
        max_tokens=rule.max_tokens,
        refill_rate=rule.refill_rate,
        cost=rule.cost if rule.counts_in_flight else cost or rule.cost,
        hold_seconds=rule.hold_seconds,
    )


def _limit_of(bound: Bound, compiled: EndpointRules) -> Limit | None:
    for limit in (*compiled.claimed.limits, *compiled.shadows):
        if limit.rule is bound.rule and limit.bucket == bound.bucket:
            return limit
    return None


def _why_here(bound: Bound, compiled: EndpointRules) -> str:
    if compiled.endpoint == UNMATCHED:
        return "the rules of unmatched endpoints"
    if bound.bucket != compiled.endpoint:
        return f"the endpoint is in the group {bound.bucket}"
    return f"the endpoint {compiled.endpoint} names it"


def _why_off(rule: RateLimitRule, switches: tuple[KillSwitch, ...]) -> str:
    for switch in switches:
        if not switch.policies or rule.policy in switch.policies:
            return f"a kill switch is thrown{_until(switch.until)}{_because(switch.reason)}"
    return "enabled = false"


def _until(until: datetime | None) -> str:
    return "" if until is None else f" until {until.isoformat()}"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
