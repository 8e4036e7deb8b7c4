"""What servers say of their limits is understood, in all of their ways."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sluicegate.presentation.client.server_fields import Quota, ServerWord, read_answer, seconds_of

NOW = datetime(2026, 11, 26, 3, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())

# status, fields, refused, pause_s, quotas
SETS: dict[str, tuple[int, dict[str, str], bool, float | None, list[Quota]]] = {
    "seconds": (429, {"Retry-After": "120"}, True, 120.0, []),
    "HTTP date": (503, {"Retry-After": "Thu, 26 Nov 2026 03:01:30 GMT"}, True, 90.0, []),
    "HTTP date by the server's clock": (
        503,
        {"Date": "Thu, 26 Nov 2026 05:00:00 GMT", "Retry-After": "Thu, 26 Nov 2026 05:00:10 GMT"},
        True,
        10.0,
        [],
    ),
    "a date that has passed": (429, {"Retry-After": "Wed, 25 Nov 2026 00:00:00 GMT"}, True, 0.0, []),
    "milliseconds before seconds": (429, {"retry-after": "2", "retry-after-ms": "1250"}, True, 1.25, []),
    "nonsense": (429, {"Retry-After": "soon", "X-RateLimit-Remaining": "-1", "RateLimit": '";;,="'}, True, None, []),
    "of a redirect": (301, {"Retry-After": "120"}, False, None, []),
    "a plain 403": (403, {"x-ratelimit-remaining": "10"}, False, None, [Quota("", 10, None)]),
    "draft 11": (
        429,
        {
            "RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=86400',
            "RateLimit": '"burst";r=0;t=30, "daily";r=9;t=999',
        },
        True,
        30.0,
        [Quota("burst", 0, 30.0), Quota("daily", 9, 999.0)],
    ),
    "draft 11 with a name that has marks in it": (
        200,
        {"RateLimit": '"a,b;c=1";r=3;t=5;pk=:cHNkZmc=:'},
        False,
        None,
        [Quota("a,b;c=1", 3, 5.0)],
    ),
    "draft 11 with calls in flight": (
        200,
        {
            "RateLimit-Policy": '"streams";q=4;qu="concurrent-requests", "burst";q=100;w=60',
            "RateLimit": '"streams";r=0;t=60, "burst";r=7;t=9',
        },
        False,
        None,
        [Quota("streams", 0, 60.0, "concurrent-requests"), Quota("burst", 7, 9.0)],
    ),
    "newer names": (200, {"RateLimit": '"default";a=0;w=12'}, False, 12.0, [Quota("default", 0, 12.0)]),
    "draft 7": (200, {"RateLimit": "limit=100, remaining=0, reset=50"}, False, 50.0, [Quota("", 0, 50.0)]),
    "draft 6": (
        429,
        {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "0", "RateLimit-Reset": "7"},
        True,
        7.0,
        [Quota("", 0, 7.0)],
    ),
    "X-RateLimit with an instant": (
        429,
        {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(EPOCH + 42)},
        True,
        42.0,
        [Quota("", 0, 42.0)],
    ),
    "X-RateLimit in milliseconds": (
        429,
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str((EPOCH + 42) * 1000)},
        True,
        42.0,
        [Quota("", 0, 42.0)],
    ),
    "Twitter": (
        429,
        {"x-rate-limit-limit": "15", "x-rate-limit-remaining": "0", "x-rate-limit-reset": str(EPOCH + 900)},
        True,
        900.0,
        [Quota("", 0, 900.0)],
    ),
    "Discord": (
        429,
        {
            "Retry-After": "65",
            "X-RateLimit-Limit": "10",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": f"{EPOCH + 64}.129",
            "X-RateLimit-Reset-After": "64.57",
            "X-RateLimit-Bucket": "abcd1234",
        },
        True,
        65.0,
        [Quota("", 0, 64.57)],
    ),
    "GitHub, primary": (
        403,
        {
            "x-ratelimit-limit": "60",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-used": "60",
            "x-ratelimit-reset": str(EPOCH + 1800),
            "x-ratelimit-resource": "core",
        },
        True,
        1800.0,
        [Quota("", 0, 1800.0)],
    ),
    "GitHub, secondary": (
        403,
        {"retry-after": "60", "x-ratelimit-remaining": "4990", "x-ratelimit-reset": str(EPOCH + 1800)},
        True,
        60.0,
        [Quota("", 4990, 1800.0)],
    ),
    "OpenAI": (
        200,
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        False,
        360.0,
        [Quota("requests", 59, 0.12), Quota("tokens", 0, 360.0)],
    ),
    "Anthropic": (
        429,
        {
            "retry-after": "11",
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-11-26T03:00:01Z",
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-26T03:00:11Z",
        },
        True,
        11.0,
        [Quota("requests", 49, 1.0), Quota("input-tokens", 0, 11.0)],
    ),
}


@pytest.mark.parametrize("given_set", SETS.values(), ids=SETS)
def test_sets_of_fields(given_set: tuple[int, dict[str, str], bool, float | None, list[Quota]]) -> None:
    """As real servers send them, or as the drafts show them."""
    status, fields, refused, pause_s, quotas = given_set
    for told in (fields, {name.upper(): f" {value} " for name, value in fields.items()}):
        word = read_answer(status, told, NOW)
        assert (word.refused, word.pause_s) == (refused, pytest.approx(pause_s))
        assert [(quota.name.lower(), quota.remaining) for quota in word.quotas] == [
            (q.name, q.remaining) for q in quotas
        ]
        assert [quota.unit for quota in word.quotas] == [quota.unit for quota in quotas]
        assert [quota.reset_s for quota in word.quotas] == [pytest.approx(quota.reset_s) for quota in quotas]


@pytest.mark.parametrize(("text", "may"), [("true", True), ("False", False), ("perhaps", None)])
def test_whether_it_should_be_retried(text: str, may: bool | None) -> None:
    """The server's own word, where there is one."""
    assert read_answer(429, {"x-should-retry": text}, NOW).may_retry is may


def test_calls_are_told_from_other_quotas() -> None:
    """What remains of tokens is not what remains of calls."""
    word = ServerWord(False, None, (Quota("tokens", 0, None), Quota("requests", 7, None), Quota("", 9, None)), None)
    assert word.remaining_calls == 7
    for other in (
        Quota("input-tokens", 0, None),
        Quota("a", 0, None, "content-bytes"),
        Quota("a", 0, None, "concurrent-requests"),
    ):
        assert ServerWord(False, None, (other,), None).remaining_calls is None
    for unit in ("request", "requests"):
        assert ServerWord(False, None, (Quota("a", 3, None, unit),), None).remaining_calls == 3


@given(st.integers(0, 9999), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    """A duration is the sum of its parts, and an HTTP date, an instant and an epoch say the same."""
    total = hours * 3600 + minutes * 60 + seconds
    assert seconds_of(f"{hours}h{minutes}m{seconds}s", NOW) == total
    assert seconds_of(f"{seconds}.{milliseconds:03}s", NOW) == pytest.approx(seconds + milliseconds / 1000)
    assert seconds_of(f"{milliseconds}ms", NOW) == pytest.approx(milliseconds / 1000)
    assert seconds_of(str(EPOCH + total), NOW) == total
    at = NOW + timedelta(seconds=total)
    assert seconds_of(format_datetime(at, usegmt=True), NOW) == total
    assert seconds_of(at.isoformat().replace("+00:00", "Z"), NOW) == total


names = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        "ratelimit",
        "ratelimit-reset",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "date",
    ]
)


@given(st.integers(100, 599), st.dictionaries(names, st.text(max_size=40)))
@example(429, {"retry-after": "9" * 5000})
@example(429, {"date": "0001-01-01T00:00:00+23:59", "retry-after": "9999-12-31T23:59:59-23:59"})
@example(429, {"retry-after": "", "x-ratelimit-remaining": "0", "x-ratelimit-reset": ""})
def test_no_field_breaks_it(status: int, fields: dict[str, str]) -> None:
    """Whatever a server sends, nothing is raised, and a wait is never negative or endless."""
    word = read_answer(status, fields, NOW)
    assert word.pause_s is None or 0 <= word.pause_s <= 1e9
    assert word.refused is (status in {429, 503}) or status == 403
