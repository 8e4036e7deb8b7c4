"""Reading the instants of logs."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.presentation.cli.replay.formats.timestamps import any_time_us

NOON_US = int(datetime(2025, 11, 26, 12, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("value", "time_us"),
    [
        (1_764_158_400, NOON_US),
        (1_764_158_400.25, NOON_US + 250_000),
        (1_764_158_400_250, NOON_US + 250_000),
        (1_764_158_400_250_001, NOON_US + 250_001),
        (1_764_158_400_250_001_999, NOON_US + 250_001),
        ("1764158400.25", NOON_US + 250_000),
        ("1764158400", NOON_US),
        ("2025-11-26T12:00:00Z", NOON_US),
        ("2025-11-26 12:00:00", NOON_US),
        ("2025-11-26T14:00:00.250001+02:00", NOON_US + 250_001),
        ("26/Nov/2025:13:00:00 +0100", NOON_US),
        ("[26/Nov/2025:12:00:00 +0000]", NOON_US),
        ("26/Nov/2025:12:00:00.5", NOON_US + 500_000),
        (0, 0),
    ],
)
def test_an_instant_is_read_in_every_notation(value: object, time_us: int) -> None:
    """Units are told apart by their size, and what names no zone is in UTC."""
    assert any_time_us(value) == time_us


@pytest.mark.parametrize(
    "value",
    [
        -1,
        float("nan"),
        float("inf"),
        True,
        None,
        "",
        "soon",
        "2100-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        10**20,
        10**400,
        1e300,
        [],
        "31/Feb/2025:12:00:00 +0000",
    ],
)
def test_what_is_no_instant_from_1970_to_2099_is_none(value: object) -> None:
    """The limiter's clock could not show it."""
    assert any_time_us(value) is None


@given(st.datetimes(datetime(1971, 1, 1), datetime(2099, 12, 31)))  # noqa: DTZ001 - Hypothesis takes naive bounds
def test_what_is_written_is_read_back(moment: datetime) -> None:
    """To the microsecond, as text; as a number of microseconds from 1973 on, before which it would be milliseconds."""
    moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    time_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    assert any_time_us(moment.isoformat()) == time_us
    if moment.year >= 1974:
        assert any_time_us(time_us) == time_us
