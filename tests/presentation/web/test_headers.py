"""The fields are structured fields as the draft has them, and tell the truth."""

import json
import math
from typing import Any

import http_sf
import pytest

from sluicegate import InvalidInputError, RateLimitResult, RateLimitRule
from sluicegate.application.check import Decision
from sluicegate.domain.rules.rule import OnStorageError
from sluicegate.presentation.web.headers import QuotaHeaders, build_denial, retry_after_seconds

BURST = RateLimitRule(5, 30, "ip", name="burst")
DAILY = RateLimitRule.per_day(1000, scope="user")
ALLOWED = RateLimitResult(allowed=True, retry_after=0.0, remaining=3, limit=5, reset_seconds=4)
DENIED = RateLimitResult(allowed=False, retry_after=1.2, remaining=0, limit=5, reset_seconds=10)


def decision(
    result: RateLimitResult,
    rules: tuple[RateLimitRule, ...] = (),
    binding: RateLimitRule | None = None,
    degraded: OnStorageError | None = None,
) -> Decision:
    """Return what a limiter tells of a check."""
    return Decision(result, rules, binding, degraded)


def parsed(value: str) -> Any:
    """Return a structured list as RFC 9651 reads it."""
    return http_sf.parse(value.encode(), tltype="list")


def test_draft_11_on_an_allowed_response() -> None:
    """`RateLimit-Policy` lists all quotas with their windows, `RateLimit` what is left of the one that binds."""
    fields = dict(QuotaHeaders("draft-11").build(decision(ALLOWED, (BURST, DAILY), BURST)))
    assert parsed(fields["ratelimit-policy"]) == [
        ("burst", {"q": 5, "w": 10}),
        ("user-1000-86400s", {"q": 1000, "w": 86400}),
    ]
    assert parsed(fields["ratelimit"]) == [("burst", {"r": 3, "t": 4})]
    assert len(fields) == 2


def test_calls_in_flight() -> None:
    """They have no window, and end when their work does: only a denial says how long to wait at most."""
    streams = RateLimitRule.in_flight(5, scope="user", hold_seconds=60)
    both = QuotaHeaders("both")
    fields = dict(both.build(decision(ALLOWED, (BURST, streams), streams)))
    assert parsed(fields["ratelimit-policy"]) == [
        ("burst", {"q": 5, "w": 10}),
        ("user-5-in-flight", {"q": 5, "qu": "concurrent-requests"}),
    ]
    assert parsed(fields["ratelimit"]) == [("user-5-in-flight", {"r": 3})]
    assert "x-ratelimit-reset" not in fields
    assert parsed(dict(both.build(decision(ALLOWED, (BURST, streams), BURST)))["ratelimit"]) == [
        ("burst", {"r": 3, "t": 4})
    ]
    assert parsed(dict(both.build(decision(DENIED, (streams,), streams)))["ratelimit"]) == [
        ("user-5-in-flight", {"r": 0, "t": 2})
    ]


def test_a_limiter_that_tells_no_rules() -> None:
    """The fields are well-formed even if the limiter tells no more than the port asks for."""
    fields = dict(QuotaHeaders("draft-11").build(decision(ALLOWED)))
    assert parsed(fields["ratelimit-policy"]) == [("default", {"q": 5})]
    assert parsed(fields["ratelimit"]) == [("default", {"r": 3, "t": 4})]


def test_styles() -> None:
    """One family of fields, the other, both, or none."""
    told = decision(ALLOWED, (BURST,), BURST)
    old = {"x-ratelimit-limit": "5", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "4"}
    assert dict(QuotaHeaders("x-ratelimit").build(told)) == old
    assert dict(QuotaHeaders("both").build(told)) == old | dict(QuotaHeaders("draft-11").build(told))
    assert QuotaHeaders("none").build(told) == ()
    with pytest.raises(InvalidInputError, match="headers='draft-7'"):
        QuotaHeaders("draft-7")  # type: ignore[arg-type]


def test_each_endpoint_has_its_own_texts() -> None:
    """Texts that are kept for one tuple of rules never show for another, however many there are."""
    quota = QuotaHeaders("draft-11")
    for number in range(3_000):
        rule = RateLimitRule(5, 30, "ip", name=f"r{number}")
        for _ in range(2):
            fields = dict(quota.build(decision(ALLOWED, (rule, DAILY), rule)))
            assert fields["ratelimit"] == f'"r{number}";r=3;t=4'
            assert fields["ratelimit-policy"] == f'"r{number}";q=5;w=10, "user-1000-86400s";q=1000;w=86400'
        assert dict(quota.build(decision(ALLOWED, (rule, DAILY), DAILY)))["ratelimit"] == '"user-1000-86400s";r=3;t=4'


def test_nothing_is_told_where_nothing_is_known() -> None:
    """There are no fields without a rule or while requests are not counted; a local bucket counts."""
    none = RateLimitResult(allowed=True, retry_after=0.0, remaining=0, limit=0, reset_seconds=0)
    assert QuotaHeaders("both").build(decision(none)) == ()
    assert QuotaHeaders("both").build(decision(ALLOWED, (BURST,), BURST, "allow")) == ()
    assert len(QuotaHeaders("both").build(decision(ALLOWED, (BURST,), BURST, "local"))) == 5


def test_a_denial() -> None:
    """Status 429, a wait that is rounded up, no caching, and problem details that name the quota."""
    decided = Decision(DENIED, (BURST, DAILY), BURST, None, (BURST, DAILY))
    answer = build_denial(decided, QuotaHeaders("draft-11", retry_after_ms=True))
    fields = dict(answer.headers)
    assert answer.status == 429
    assert fields["retry-after"] == "2"
    assert fields["cache-control"] == "no-store"
    assert fields["content-type"] == "application/problem+json"
    assert fields["content-length"] == str(len(answer.body))
    ((_, parameters),) = parsed(fields["ratelimit"])
    assert parameters["t"] <= int(fields["retry-after"])
    problem = json.loads(answer.body)
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["status"] == 429
    assert problem["violated-policies"] == ["burst", "user-1000-86400s"]
    assert fields["retry-after-ms"] == str(math.ceil(DENIED.retry_after * 1000))
    assert "2 seconds" in problem["detail"]


def test_a_denial_that_no_wait_helps() -> None:
    """A request that costs more than the bucket holds gets no Retry-After, which would be a lie."""
    never = RateLimitResult(allowed=False, retry_after=math.inf, remaining=0, limit=5, reset_seconds=0)
    fields = dict(build_denial(decision(never, (BURST,), BURST), QuotaHeaders("both")).headers)
    assert "retry-after" not in fields
    assert "x-ratelimit-reset" not in fields
    assert parsed(fields["ratelimit"]) == [("burst", {"r": 0})]


def test_a_refusal_because_the_storage_failed() -> None:
    """That is the server's fault: 503, with no quota told, since none was counted."""
    refused = RateLimitResult(allowed=False, retry_after=1.0, remaining=0, limit=5, reset_seconds=0)
    answer = build_denial(decision(refused, (BURST,), BURST, "deny"), QuotaHeaders("both"))
    assert answer.status == 503
    problem = json.loads(answer.body)
    assert problem["type"].endswith("#temporary-reduced-capacity")
    assert "violated-policies" not in problem
    assert dict(answer.headers)["retry-after"] == "1"
    assert not any("ratelimit" in name for name, _ in answer.headers)


@pytest.mark.parametrize(("seconds", "whole"), [(0.0001, 1), (1.0, 1), (1.0001, 2), (59.9, 60), (math.inf, None)])
def test_waits_are_rounded_up(seconds: float, whole: int | None) -> None:
    """A client that waits as told is not sent away again."""
    assert retry_after_seconds(seconds) == whole
