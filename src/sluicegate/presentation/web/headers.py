"""What a client is told: header fields, and the problem details of a denial. Pure texts, for every framework alike.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11, a draft: `RateLimit-Policy` lists the quotas and `RateLimit` what
is left of the one that binds, both as RFC 9651 has them. They are written here by hand, since policy names need no escaping.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import msgspec

from sluicegate.application.checked import Checked
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.result import RateLimitResult
from sluicegate.domain.rule import RateLimitRule

HeaderStyle: TypeAlias = Literal["draft-11", "x-ratelimit", "both", "none"]
"""Which fields tell clients of their quota. `Retry-After` comes with every denial."""

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Names in lower case, and values."""

Field: TypeAlias = tuple[bytes, bytes]
"""A name in lower case and a value, as ASGI has them."""

QuotaFields: TypeAlias = Callable[[RateLimitResult], tuple[Field, ...]]
"""From the answer to an allowed request to the fields that tell of its quota."""

_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"
_NO_RULE_NAME = "default"  # of a limiter that tells no more than the port asks for


class Denial(msgspec.Struct, frozen=True):
    """The answer to a request that may not pass.

    Args:
        status: 429; 503 where the storage failed and the rule's policy is to refuse: that is not the client's doing.
        headers: All fields, with the body's type and length.
        body: Problem details of RFC 9457, in JSON.
        checked: What the limiter said.
    """

    status: int
    headers: Headers
    body: bytes
    checked: Checked


def require_style(style: HeaderStyle) -> HeaderStyle:
    """Return a header style, or raise the error that names the field.

    Raises:
        InvalidInputError: If there is no such style.
    """
    if style not in get_args(HeaderStyle):
        raise InvalidInputError(f"headers={style!r}: expected one of {', '.join(get_args(HeaderStyle))}")
    return style


def quota_headers(checked: Checked, style: HeaderStyle) -> Headers:
    """Return the fields that tell of quotas, for a response of any status.

    None where no rule holds, and none while nobody counts: a full quota that the storage's failure feigns is no fact.

    Args:
        checked: What the limiter said.
        style: Which fields.
    """
    result = checked.result
    if style == "none" or result.limit == 0 or checked.degraded in {"allow", "deny"}:
        return ()
    fields: Headers = ()
    # On a denial `t` is not later than Retry-After, which is what the draft asks of the two.
    seconds = result.reset_seconds if result.allowed else retry_after_seconds(result.retry_after)
    if style != "x-ratelimit":
        name = _policy(checked.tightest) if checked.tightest else _NO_RULE_NAME
        policies = _policies(checked.rules) if checked.rules else f'"{name}";q={result.limit}'
        after = f";t={seconds}" if seconds is not None else ""
        fields = (("ratelimit-policy", policies), ("ratelimit", f'"{name}";r={result.remaining}{after}'))
    if style != "draft-11":
        fields += (("x-ratelimit-limit", str(result.limit)), ("x-ratelimit-remaining", str(result.remaining)))
        if seconds is not None:
            fields += (("x-ratelimit-reset", str(seconds)),)
    return fields


def build_quota_fields(rule: RateLimitRule, style: HeaderStyle) -> QuotaFields | None:
    """Build what returns `quota_headers`, as bytes, for an allowed request of which only this rule was asked.

    Args:
        rule: The rule. What is always the same for it is written once.
        style: Which fields. None is built for styles with fields of their own, which the application's may replace.
    """
    if style == "none":
        return lambda _: ()
    if style != "draft-11":
        return None
    policies = (b"ratelimit-policy", _policies((rule,)).encode())
    form = f'"{rule.policy}";r=%d;t=%d'.encode()

    def quota_fields(result: RateLimitResult) -> tuple[Field, ...]:
        return policies, (b"ratelimit", form % (result.remaining, result.reset_seconds))

    return quota_fields


def denial(checked: Checked, style: HeaderStyle) -> Denial:
    """Return the response to a request that may not pass.

    Args:
        checked: What the limiter said.
        style: Which fields tell of quotas.
    """
    seconds = retry_after_seconds(checked.result.retry_after)
    refused = checked.degraded == "deny"
    again = "It would never pass." if seconds is None else f"Try again in {seconds} second{'s' if seconds > 1 else ''}."
    problem: dict[str, object]
    if refused:
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
    if checked.tightest is not None:
        problem["violated-policies"] = [checked.tightest.policy]
    body = msgspec.json.encode(problem)
    headers: Headers = (
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    )
    if seconds is not None:
        headers += (("retry-after", str(seconds)),)
    return Denial(503 if refused else 429, headers + quota_headers(checked, style), body, checked)


def retry_after_seconds(retry_after: float) -> int | None:
    """Return whole seconds, rounded up and at least 1 (RFC 9110, section 10.2.3); None if no wait helps."""
    return None if math.isinf(retry_after) else max(1, math.ceil(retry_after))


@lru_cache(maxsize=1024)
def _policies(rules: tuple[RateLimitRule, ...]) -> str:
    return ", ".join([f'"{rule.policy}";q={rule.max_tokens};w={rule.full_seconds}' for rule in rules])


@lru_cache(maxsize=1024)
def _policy(rule: RateLimitRule) -> str:
    return rule.policy
