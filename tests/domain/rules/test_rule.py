"""Rules: what they accept, what they refuse and in which words."""

import contextlib
import dataclasses
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import InvalidInputError, InvalidTypeError, RateLimitRule, RateLimitScope
from sluicegate.domain.rules.rate import exact_rate

GOOD: dict[str, Any] = {"max_tokens": 5, "refill_rate": 5.0, "scope": RateLimitScope.IP}

BAD = [
    ("max_tokens", 0, "max_tokens=0: expected 1 to 1000000000000"),
    ("max_tokens", -1, "max_tokens=-1: expected 1 to 1000000000000"),
    ("max_tokens", 10**12 + 1, "max_tokens=1000000000001: expected 1 to 1000000000000"),
    ("max_tokens", True, "max_tokens=True: expected a whole number, not bool"),
    ("max_tokens", 5.0, "max_tokens=5.0: expected a whole number, not float"),
    ("max_tokens", "5", "max_tokens='5': expected a whole number, not str"),
    ("max_tokens", None, "max_tokens=None: expected a whole number, not NoneType"),
    ("refill_rate", 0, "refill_rate=0: expected a finite number of tokens per minute above 0"),
    ("refill_rate", -1.5, "refill_rate=-1.5: expected a finite number of tokens per minute above 0"),
    ("refill_rate", math.nan, "refill_rate=nan: expected a finite number of tokens per minute above 0"),
    ("refill_rate", math.inf, "refill_rate=inf: expected a finite number of tokens per minute above 0"),
    ("refill_rate", True, "refill_rate=True: expected tokens per minute, a number"),
    ("refill_rate", "5", "refill_rate='5': expected tokens per minute, a number"),
    ("refill_rate", 1e-300, "this bucket cannot be counted exactly"),
    ("refill_rate", 1e300, "this bucket cannot be counted exactly"),
    ("scope", "", "scope='': unknown scope; expected one of ip, user, user_provider, global, or a name of your own"),
    ("scope", "Bad Scope", "scope='Bad Scope': unknown scope"),
    ("scope", "a:b", "scope='a:b': unknown scope"),
    ("scope", 5, "scope=5: expected a RateLimitScope or a name of your own"),
    ("cost", 0, "cost=0: expected 1 to max_tokens=5"),
    ("cost", 6, "cost=6: expected 1 to max_tokens=5"),
    ("cost", 1.5, "cost=1.5: expected a whole number, not float"),
    ("enabled", 1, "enabled=1: expected True or False"),
    ("name", 'a"b', "name='a\"b': expected up to 64 letters, digits or any of _.*/-"),
    ("name", 5, "name=5: expected up to 64 letters"),
    ("on_storage_error", "open", "on_storage_error='open': expected one of allow, local, deny"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD, ids=[f"{f}={v!r}" for f, v, _ in BAD])
def test_a_wrong_field_is_named_with_its_value(field: str, value: object, message: str) -> None:
    """A rule is refused where it is made, in one line that says what was expected."""
    with pytest.raises(InvalidInputError) as caught:
        RateLimitRule(**{**GOOD, field: value})
    assert message in str(caught.value)


def test_a_wrong_type_is_a_type_error_too() -> None:
    """Those who catch TypeError and those who catch ValueError both get it."""
    with pytest.raises(TypeError):
        RateLimitRule(**{**GOOD, "max_tokens": "5"})
    assert issubclass(InvalidTypeError, ValueError)


def test_a_rule_is_frozen_and_equal_by_value() -> None:
    """Rules are values: they hash, compare and cannot be changed."""
    rule = RateLimitRule(**GOOD)
    assert rule == RateLimitRule(5, 5, "ip")
    assert len({rule, RateLimitRule(5, 5, "ip")}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.max_tokens = 6  # type: ignore[misc]
    assert dataclasses.replace(rule, cost=2).cost == 2


def test_the_derived_times() -> None:
    """Seconds per token, and a time to live that is not shorter than the time to full."""
    rule = RateLimitRule(7, 2.5, "ip")
    assert rule.seconds_per_token == 24.0
    assert rule.full_seconds == 168
    assert rule.ttl_seconds == 169


def test_the_builders() -> None:
    """Each unit gives the same rule as the number of tokens per minute does."""
    assert RateLimitRule.per_second(10) == RateLimitRule(10, 600, "ip")
    assert RateLimitRule.per_minute(10, burst=3, scope="user") == RateLimitRule(3, 10, RateLimitScope.USER)
    assert RateLimitRule.per_hour(30) == RateLimitRule(30, 0.5, "ip")
    assert RateLimitRule.per_day(1) == RateLimitRule(1, 1 / 1440, "ip")
    assert RateLimitRule.per_day(1).seconds_per_token == pytest.approx(86_400)
    with pytest.raises(InvalidInputError, match="n=0: expected 1 to"):
        RateLimitRule.per_hour(0)


PARSED = [
    ("100/minute", RateLimitRule(100, 100, "ip")),
    ("1/SECOND", RateLimitRule(1, 60, "ip")),
    ("5 per 10 seconds", RateLimitRule(5, 30, "ip")),
    ("2/day", RateLimitRule(2, 2 / 1440, "ip")),
    (" 7 / 2 h ", RateLimitRule(7, 7 / 120, "ip")),
    ("100/min burst 20", RateLimitRule(20, 100, "ip")),
    ("5/minute per user", RateLimitRule(5, 5, "user")),
    ("5/minute burst 9 per tenant", RateLimitRule(9, 5, "tenant")),
    ("1 per 7 seconds", RateLimitRule(1, 60 / 7, "ip")),
]


@pytest.mark.parametrize(("text", "rule"), PARSED)
def test_the_notation(text: str, rule: RateLimitRule) -> None:
    """A rate can be written as people say it."""
    assert RateLimitRule.parse(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "meow",
        "1 per millennium",
        "5/",
        "/minute",
        "-5/minute",
        "5.5/minute",
        "5/minute burst",
        "5//minute",
        "5/minute!",
    ],
)
def test_a_text_that_is_no_rate_is_shown(text: str) -> None:
    """The message repeats the text and gives examples."""
    with pytest.raises(InvalidInputError, match="expected a rate such as '100/minute'") as caught:
        RateLimitRule.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"), [("0/minute", "count"), ("5 per 0 seconds", "period"), ("5/minute burst 0", "burst")]
)
def test_a_zero_in_a_rate_is_named(text: str, what: str) -> None:
    """Nothing that is zero makes a rule."""
    with pytest.raises(InvalidInputError, match=f"the {what} must be at least 1"):
        RateLimitRule.parse(text)


def test_a_scope_that_contradicts_the_text_is_an_error() -> None:
    """Two different scopes cannot both be meant."""
    assert RateLimitRule.parse("5/minute per user", scope="user").scope == "user"
    with pytest.raises(InvalidInputError, match="names the scope 'user', but scope='ip' was given"):
        RateLimitRule.parse("5/minute per user", scope="ip")
    with pytest.raises(InvalidTypeError, match="rate=5"):
        RateLimitRule.parse(5)  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text gives a rule or an InvalidInputError."""
    with contextlib.suppress(InvalidInputError):
        RateLimitRule.parse(text)


@given(st.integers(1, 10**6), st.integers(1, 10**5))
def test_a_float_stands_for_the_fraction_that_was_meant(numerator: int, denominator: int) -> None:
    """What a division of two ordinary numbers gave is read back as that fraction."""
    assert exact_rate(numerator / denominator) == Fraction(numerator, denominator)


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_any_float_stands_for_a_fraction_that_rounds_to_it(value: float) -> None:
    """The fraction differs from the float by less than the float's own grain."""
    rate = exact_rate(value)
    assert rate.numerator / rate.denominator == value or abs(Fraction(value) - rate) <= Fraction(math.ulp(value)) / 2


def test_the_policy_name_says_what_it_is() -> None:
    """A rule without a name is called by scope, capacity and window."""
    assert RateLimitRule.per_minute(5).policy == "ip-5-60s"
    assert RateLimitRule(5, 5, "ip", name="login").policy == "login"
