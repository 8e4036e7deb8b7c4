"""The fields are structured fields as the draft has them, and tell the truth."""

import json
import math
from typing import Any, get_args

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import InvalidInputError, RateLimitResult, RateLimitRule
from sluicegate.application.checked import Checked
from sluicegate.presentation.web.headers import (
    HeaderStyle,
    build_quota_fields,
    denial,
    quota_headers,
    require_style,
    retry_after_seconds,
)

BURST = RateLimitRule(5, 30, "ip", name="burst")
DAILY = RateLimitRule.per_day(1000, scope="user")
ALLOWED = RateLimitResult(allowed=True, retry_after=0.0, remaining=3, limit=5, reset_seconds=4)
DENIED = RateLimitResult(allowed=False, retry_after=1.2, remaining=0, limit=5, reset_seconds=10)


def parsed(value: str) -> Any:
    """Return a structured list as RFC 9651 reads it."""
    return http_sf.parse(value.encode(), tltype="list")


def test_draft_11_on_an_allowed_response() -> None:
    """`RateLimit-Policy` lists all quotas with their windows, `RateLimit` what is left of the tightest."""
    fields = dict(quota_headers(Checked(ALLOWED, (BURST, DAILY), BURST), "draft-11"))
    assert parsed(fields["ratelimit-policy"]) == [
        ("burst", {"q": 5, "w": 10}),
        ("user-1000-86400s", {"q": 1000, "w": 86400}),
    ]
    assert parsed(fields["ratelimit"]) == [("burst", {"r": 3, "t": 4})]
    assert len(fields) == 2


def test_a_limiter_that_tells_no_rules() -> None:
    """A limiter of somebody else's, which only says what the port asks for, still gives well-formed fields."""
    fields = dict(quota_headers(Checked(ALLOWED), "draft-11"))
    assert parsed(fields["ratelimit-policy"]) == [("default", {"q": 5})]
    assert parsed(fields["ratelimit"]) == [("default", {"r": 3, "t": 4})]


def test_styles() -> None:
    """One family of fields, the other, both, or none."""
    checked = Checked(ALLOWED, (BURST,), BURST)
    old = {"x-ratelimit-limit": "5", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "4"}
    assert dict(quota_headers(checked, "x-ratelimit")) == old
    assert dict(quota_headers(checked, "both")) == old | dict(quota_headers(checked, "draft-11"))
    assert quota_headers(checked, "none") == ()
    with pytest.raises(InvalidInputError, match="headers='draft-7'"):
        require_style("draft-7")  # type: ignore[arg-type]


@given(
    st.sampled_from([BURST, DAILY, RateLimitRule(5, 30, "ip"), RateLimitRule(1, 1, "ip", name="a_*-b.c")]),
    st.integers(0, 2**52),
    st.integers(0, 2**52),
)
def test_written_as_bytes(rule: RateLimitRule, remaining: int, reset_seconds: int) -> None:
    """The fields that are written for an endpoint once are the same ones, byte by byte; styles that may not are left out."""
    result = RateLimitResult(True, 0.0, remaining, rule.max_tokens, reset_seconds)
    for style in get_args(HeaderStyle):
        write = build_quota_fields(rule, style)
        told = quota_headers(Checked(result, (rule,), rule), style)
        if style in {"draft-11", "none"}:
            assert write is not None
            assert write(result) == tuple((name.encode(), value.encode()) for name, value in told)
        else:
            assert write is None


def test_nothing_is_told_where_nothing_is_known() -> None:
    """No rule, or a storage that failed: a full quota would be made up. A local bucket counts, and is told of."""
    none = RateLimitResult(allowed=True, retry_after=0.0, remaining=0, limit=0, reset_seconds=0)
    assert quota_headers(Checked(none), "both") == ()
    assert quota_headers(Checked(ALLOWED, (BURST,), BURST, "allow"), "both") == ()
    assert len(quota_headers(Checked(ALLOWED, (BURST,), BURST, "local"), "both")) == 5


def test_a_denial() -> None:
    """Status 429, a wait that is rounded up, no caching, and problem details that name the quota."""
    answer = denial(Checked(DENIED, (BURST, DAILY), BURST), "draft-11")
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
    assert problem["violated-policies"] == ["burst"]
    assert "2 seconds" in problem["detail"]


def test_a_denial_that_no_wait_helps() -> None:
    """A request that costs more than the bucket holds gets no Retry-After, which would be a lie."""
    never = RateLimitResult(allowed=False, retry_after=math.inf, remaining=0, limit=5, reset_seconds=0)
    fields = dict(denial(Checked(never, (BURST,), BURST), "both").headers)
    assert "retry-after" not in fields
    assert "x-ratelimit-reset" not in fields
    assert parsed(fields["ratelimit"]) == [("burst", {"r": 0})]


def test_a_refusal_because_the_storage_failed() -> None:
    """That is the server's fault: 503, with no quota told, since none was counted."""
    refused = RateLimitResult(allowed=False, retry_after=1.0, remaining=0, limit=5, reset_seconds=0)
    answer = denial(Checked(refused, (BURST,), BURST, "deny"), "both")
    assert answer.status == 503
    assert json.loads(answer.body)["type"].endswith("#temporary-reduced-capacity")
    assert dict(answer.headers)["retry-after"] == "1"
    assert not any("ratelimit" in name for name, _ in answer.headers)


@pytest.mark.parametrize(("seconds", "whole"), [(0.0001, 1), (1.0, 1), (1.0001, 2), (59.9, 60), (math.inf, None)])
def test_waits_are_rounded_up(seconds: float, whole: int | None) -> None:
    """A client that waits as told is not sent away again."""
    assert retry_after_seconds(seconds) == whole
