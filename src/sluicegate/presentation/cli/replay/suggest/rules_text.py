"""Write what is suggested as a rules file: the evidence in comments, every rule in shadow."""

import json
from collections.abc import Iterator

from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.presentation.cli.replay.suggest.suggestion import EndpointSuggestion, Suggestion
from sluicegate.presentation.cli.terminal import printable


def suggested_rules(suggestion: Suggestion, *, shadow: bool) -> dict[str, RateLimitRule]:
    """Return the suggested rules by endpoint.

    Args:
        suggestion: What is suggested.
        shadow: Whether they only watch.
    """
    found: dict[str, RateLimitRule] = {}
    for one in suggestion.endpoints:
        if one.limit is not None:
            rule = RateLimitRule.parse(one.limit, scope=suggestion.scope)
            found[one.endpoint] = RateLimitRule(
                rule.max_tokens, rule.refill_rate, rule.scope, name=one.policy, shadow=shadow
            )
    return found


def rules_text(suggestion: Suggestion, source: str) -> str:
    """Return the text of a rules file in TOML.

    Args:
        suggestion: What is suggested.
        source: What it was suggested from, for people.
    """
    return "\n".join((*_introduction(suggestion, source), "", *_policies(suggestion), "", *_endpoints(suggestion), ""))


def _introduction(suggestion: Suggestion, source: str) -> Iterator[str]:
    kinds = suggestion.clients
    aside = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if kind != "honest" and count)
    yield f"# Limits that the traffic of {printable(source)} would have kept, suggested by `sluicegate replay --suggest`."
    yield f"# {suggestion.requests:,} requests from {_time(suggestion.first)} to {_time(suggestion.last)} UTC."
    yield f"# {kinds.get('honest', 0):,} honest-looking clients; set aside: {aside or 'none'}."
    if suggestion.watched < 1:
        yield f"# Measured on a sample of {suggestion.watched:.1%} of the clients, each of them whole."
    yield f"# At each endpoint at most {suggestion.share:.1%} of the honest-looking clients are denied;"
    yield f"# a bucket is full again within {suggestion.window_s:,} s."
    for warning in suggestion.warnings:
        yield f"# WARNING: {printable(warning)}."
    yield "#"
    yield "# Every rule is in shadow: it counts and denies nobody. Look at what it would deny, then remove `shadow = true`."


def _policies(suggestion: Suggestion) -> Iterator[str]:
    yield "[policies]"
    for one in suggestion.endpoints:
        yield ""
        yield from _evidence(one)
        if one.limit is not None:
            rate = json.dumps(f"{one.limit} per {suggestion.scope}")
            yield f"{one.policy} = {{ rate = {rate}, shadow = true }}"


def _evidence(one: EndpointSuggestion) -> Iterator[str]:
    name = "all other endpoints" if one.endpoint == "*" else printable(one.endpoint)
    yield f"# {name}: {one.requests:,} requests, {one.honest_clients:,} honest-looking clients, {one.other_clients:,} others"
    if one.limit is not None:
        point = one.frontier[one.chosen]
        yield (
            f"#   at {point.rate} they needed a burst of {point.p50:,} (p50), {point.p90:,} (p90), {point.p99:,} (p99);"
            f" at most {point.burst:,} for the share,"
        )
        yield f"#   {point.low:,} to {point.high:,} in nine of ten resamples; confidence {one.confidence}"
    if one.verified is not None:
        seen = one.verified
        yield (
            f"#   replayed: denies {seen.honest_clients_denied:,} of {seen.honest_clients:,} honest-looking clients and"
            f" {seen.other_clients_denied:,} others; {seen.denied:,} of {seen.requests:,} requests"
        )
    for warning in one.warnings:
        yield f"#   WARNING: {printable(warning)}"


def _endpoints(suggestion: Suggestion) -> Iterator[str]:
    yield "[endpoints]"
    for one in suggestion.endpoints:
        if one.limit is not None:
            yield f"{json.dumps(one.endpoint, ensure_ascii=False)} = {json.dumps(one.policy)}"


def _time(iso: str) -> str:
    return iso.replace("T", " ").removesuffix("Z")
