"""What a client is told: header fields about its quota, and the response to a denied request. Only texts, for every framework.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11, a draft: `RateLimit-Policy` lists the quotas, `RateLimit` says
what is left of the one that binds. Both are lists of RFC 9651, written here by hand, since names of policies need no escaping.
"""

import math
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from sluicegate.application.check import Decision
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.rule import RateLimitRule

HeaderStyle: TypeAlias = Literal["draft-11", "x-ratelimit", "both", "none"]
"""Which header fields tell clients of their quota. `Retry-After` comes with every denial, whatever the style."""

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Header fields: names in lower case, and values."""

BODY_FIELDS: Final = frozenset({"content-type", "content-length"})
"""The fields of a denial that belong to its body, and not to another answer in its place."""

_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"
_DEFAULT_POLICY = "default"  # of a limiter that does not tell its rules
_MAX_CACHED = 1024  # tuples of rules whose texts are kept


class DenialResponse:
    """The response to a denied request.

    Args:
        status: 429; 503 where the storage failed and the rule's policy is `deny`: the client did nothing wrong then.
        headers: All header fields, with the body's type and length.
        body: Problem details of RFC 9457, in JSON.
        decision: What the limiter decided.
    """

    __slots__ = ("body", "decision", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes, decision: Decision) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.decision = decision

    def __repr__(self) -> str:
        return f"DenialResponse(status={self.status}, headers={self.headers!r}, body={self.body!r})"


class _PolicyTexts:
    """What the fields say of some rules whatever was decided."""

    __slots__ = ("names", "policies", "rules")

    def __init__(self, rules: tuple[RateLimitRule, ...]) -> None:
        self.rules = rules
        self.names = [rule.policy for rule in rules]
        self.policies = ", ".join(
            [f'"{name}";q={rule.max_tokens}{_unit(rule)}' for name, rule in zip(self.names, rules, strict=True)]
        )

    def name_of(self, binding: RateLimitRule | None) -> str:
        """Return the policy of the rule that binds."""
        for index, rule in enumerate(self.rules):
            if rule is binding:
                return self.names[index]
        return _DEFAULT_POLICY if binding is None else binding.policy


def _unit(rule: RateLimitRule) -> str:
    """Return a policy's window; of calls in flight, which have none, what it counts."""
    return ';qu="concurrent-requests"' if rule.counts_in_flight else f";w={rule.full_seconds}"


class QuotaHeaders:
    """Write the header fields that tell clients of their quota.

    Args:
        style: Which fields.
        retry_after_ms: Whether denials also tell the wait in milliseconds.

    Raises:
        InvalidInputError: If there is no such style.
    """

    def __init__(self, style: HeaderStyle, *, retry_after_ms: bool = False) -> None:
        if style not in get_args(HeaderStyle):
            raise InvalidInputError(f"headers={style!r}: expected one of {', '.join(get_args(HeaderStyle))}")
        self._draft = style in {"draft-11", "both"}
        self.retry_after_ms = retry_after_ms
        self._legacy = style in {"x-ratelimit", "both"}
        # A decision carries the same tuple of rules each time. To compare it by identity is cheaper than to hash rules.
        self._texts: dict[int, _PolicyTexts] = {}

    def build(self, decision: Decision) -> Headers:
        """Return the fields for a response of any status.

        There are none if no rule is for the request, and none while requests are not counted: the full quota that the policy
        answers is made up.
        """
        result = decision.result
        if result.limit == 0 or (decision.degraded is not None and decision.degraded != "local"):
            return ()
        # On a denial `t` is never later than Retry-After, as the draft asks.
        seconds: int | None = result.reset_seconds
        if not result.allowed:
            seconds = retry_after_seconds(result.retry_after)
        elif decision.binding is not None and decision.binding.counts_in_flight:
            seconds = None  # not known: a call in flight ends with its work
        fields: Headers = ()
        if self._draft:
            if decision.rules:
                texts = self._texts_of(decision.rules)
                policies, name = texts.policies, texts.name_of(decision.binding)
            else:
                policies, name = f'"{_DEFAULT_POLICY}";q={result.limit}', _DEFAULT_POLICY
            left = f'"{name}";r={result.remaining}' if seconds is None else f'"{name}";r={result.remaining};t={seconds}'
            fields = (("ratelimit-policy", policies), ("ratelimit", left))
        if self._legacy:
            fields += (("x-ratelimit-limit", str(result.limit)), ("x-ratelimit-remaining", str(result.remaining)))
            if seconds is not None:
                fields += (("x-ratelimit-reset", str(seconds)),)
        return fields

    def _texts_of(self, rules: tuple[RateLimitRule, ...]) -> _PolicyTexts:
        texts = self._texts.get(id(rules))
        if texts is None:
            if len(self._texts) >= _MAX_CACHED:
                self._texts.clear()
            texts = self._texts[id(rules)] = _PolicyTexts(
                rules
            )  # which keeps the rules, so that no others get their id
        return texts


def build_denial(decision: Decision, quota: QuotaHeaders) -> DenialResponse:
    """Return the response to a denied request.

    Args:
        decision: What the limiter decided.
        quota: Writes the fields that tell of the quota.
    """
    seconds = retry_after_seconds(decision.result.retry_after)
    unavailable = decision.degraded == "deny"
    again = "It would never pass." if seconds is None else f"Try again in {seconds} second{'s' if seconds > 1 else ''}."
    problem: dict[str, object]
    if unavailable:
        problem = {
            "type": f"{_PROBLEM_TYPES}temporary-reduced-capacity",
            "title": "Temporarily not available",
            "status": 503,
            "detail": f"Requests cannot be counted at the moment, and none passes uncounted here. {again}",
        }
    else:
        problem = {
            "type": f"{_PROBLEM_TYPES}quota-exceeded",
            "title": "Too many requests",
            "status": 429,
            "detail": f"The quota for this request is used up. {again}",
        }
        if decision.violated:
            problem["violated-policies"] = [rule.policy for rule in decision.violated]
    body = msgspec.json.encode(problem)
    headers: Headers = (
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    )
    if seconds is not None:
        headers += (("retry-after", str(seconds)),)
        if quota.retry_after_ms:
            headers += (("retry-after-ms", str(max(1, math.ceil(decision.result.retry_after * 1000)))),)
    return DenialResponse(503 if unavailable else 429, headers + quota.build(decision), body, decision)


def retry_after_seconds(retry_after: float) -> int | None:
    """Return whole seconds, rounded up and at least 1 (RFC 9110, section 10.2.3); None if no wait helps."""
    return None if math.isinf(retry_after) else max(1, math.ceil(retry_after))
