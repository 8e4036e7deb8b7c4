"""What a server's answer says of its limits, in all the ways in which servers say it. Pure: the time is an argument."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

_LONGEST_FIELD: Final = 1024  # characters; what is longer is not read
_LATEST_S: Final = 1e9  # a wait of 30 years is a mistake
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_DURATION = re.compile(
    r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?",
    re.ASCII,
)
_DURATION_SECONDS: Final = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_FIELD = re.compile(r"(?:x-)?rate-?limit-(limit|remaining|reset)(?:-(.+))?", re.ASCII)
_ANTHROPIC = re.compile(r"anthropic-ratelimit-(.+)-(limit|remaining|reset)", re.ASCII)
_ITEMS = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')
_PARTS = re.compile(r'(?:[^";]|"(?:[^"\\]|\\.)*")+')
_EPOCH_S: Final = 1e9  # a greater number is an instant, not a wait
_EPOCH_MS: Final = 1e11

_REFUSALS: Final = frozenset({429, 503})
_FORBIDDEN: Final = 403  # GitHub refuses so
_IN_FLIGHT: Final = "concurrent-requests"
_CALL_UNITS: Final = frozenset({"", "request", "requests"})  # the draft's text has one, its registry the other
_OTHER_UNITS: Final = ("token", "byte", "point", "cost", "unit")


class Quota(msgspec.Struct, frozen=True):
    """One of a server's limits, as far as it tells.

    Args:
        name: What is counted, in the server's words: `requests`, `tokens`, the name of a policy; empty: not told.
        remaining: What is left; None: not told.
        reset_s: Seconds until there is more, or all of it; None: not told.
        unit: What is counted, as `RateLimit-Policy` says in `qu`; empty: not told.
    """

    name: str
    remaining: int | None
    reset_s: float | None
    unit: str = ""

    @property
    def counts_calls(self) -> bool:
        """Whether it counts calls: neither bytes or tokens, nor calls in flight, which end with their work."""
        return self.unit in _CALL_UNITS and not any(word in self.name.lower() for word in _OTHER_UNITS)


class ServerWord(msgspec.Struct, frozen=True):
    """What an answer says of the server's limits.

    Args:
        refused: Whether the call was refused for a limit or an overload, and may be made again later.
        pause_s: Seconds for which no call will pass; None: not told.
        quotas: The limits that it names.
        may_retry: What the server says of making the call again; None: nothing.
    """

    refused: bool
    pause_s: float | None
    quotas: tuple[Quota, ...]
    may_retry: bool | None

    @property
    def remaining_calls(self) -> int | None:
        """How many calls are left; None: not told. Limits that count anything but calls are left out."""
        counts = [quota.remaining for quota in self.quotas if quota.remaining is not None and quota.counts_calls]
        return min(counts, default=None)


def read_answer(status: int, fields: Mapping[str, str], now: datetime) -> ServerWord:
    """Read an answer. Fields that cannot be understood are as if they were not there.

    Understood are `Retry-After` (RFC 9110: seconds or a date), `retry-after-ms`, `x-should-retry`, all drafts of `RateLimit`
    (draft-ietf-httpapi-ratelimit-headers), `X-RateLimit-*` with waits or instants, GitHub's 403, OpenAI's durations (`6m0s`)
    and Anthropic's instants (RFC 3339).

    Args:
        status: The answer's status.
        fields: The answer's fields, their names in any case; several of one name joined by commas.
        now: The time, with a zone. Instants are measured from the answer's own `Date`, where it has one.
    """
    lower = {name.lower(): value.strip() for name, value in fields.items() if len(value) <= _LONGEST_FIELD}
    now = _date(lower.get("date", "")) or now
    units = {name: told.get("qu", "").strip('"') for name, told in _policies(lower.get("ratelimit-policy", ""))}
    quotas = (*_quotas_by_name(lower, now), *_quotas_of_drafts(lower.get("ratelimit", ""), units))
    exhausted = [
        quota.reset_s
        for quota in quotas
        if quota.remaining == 0 and quota.reset_s is not None and quota.unit != _IN_FLIGHT
    ]
    told = _retry_after(lower, now)
    refused = status in _REFUSALS or (
        status == _FORBIDDEN and (told is not None or any(quota.remaining == 0 for quota in quotas))
    )
    # `Retry-After` beside other statuses speaks of other things. Beside a refusal it is the server's last word.
    pause_s = told if refused and told is not None else max(exhausted, default=None)
    should = lower.get("x-should-retry", "").lower()
    return ServerWord(refused, pause_s, quotas, {"true": True, "false": False}.get(should))


def seconds_of(text: str, now: datetime) -> float | None:
    """Return a wait in seconds, at least 0: from a number, a duration such as `1m30.5s` or `120ms`, an epoch, or a date.

    A number above a thousand million is an instant since 1970, in seconds or, if it is very great, in milliseconds.

    Returns:
        None if it is none of these.
    """
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number >= _EPOCH_S:
            number = number / (1000 if number >= _EPOCH_MS else 1) - now.timestamp()
        return _wait(number)
    match = _DURATION.fullmatch(text)
    if match and text:
        pairs = zip(match.groups(), _DURATION_SECONDS, strict=True)
        return _wait(sum(float(count) * unit for count, unit in pairs if count is not None))
    at = _date(text)
    return None if at is None else _wait((at - now).total_seconds())


def _retry_after(fields: Mapping[str, str], now: datetime) -> float | None:
    milliseconds = fields.get("retry-after-ms", "")
    if _NUMBER.fullmatch(milliseconds):
        return _wait(float(milliseconds) / 1000)
    return seconds_of(fields.get("retry-after", ""), now)


def _quotas_by_name(fields: Mapping[str, str], now: datetime) -> list[Quota]:
    """Read fields of which each says one thing: `X-RateLimit-Remaining`, `RateLimit-Reset`, `x-ratelimit-reset-tokens`."""
    by_name: dict[str, dict[str, str]] = {}
    for field, value in fields.items():
        name, what = "", ""
        if match := _FIELD.fullmatch(field.replace("rate-limit", "ratelimit")):
            what, name = match[1], match[2] or ""
        elif match := _ANTHROPIC.fullmatch(field):
            name, what = match[1], match[2]
        if what == "reset" and name == "after":  # the wait beside an instant
            name, what = "", "after"
        if what:
            by_name.setdefault(name, {})[what] = value
    quotas: list[Quota] = []
    for name, said in by_name.items():
        remaining = _count(said.get("remaining", "").partition(",")[0].strip())
        reset_s = seconds_of(said.get("after", said.get("reset", "")), now)
        if remaining is not None or reset_s is not None:
            quotas.append(Quota(name, remaining, reset_s))
    return quotas


def _quotas_of_drafts(text: str, units: Mapping[str, str]) -> list[Quota]:
    """Read the field `RateLimit`: a list of policies (`"name";r=5;t=30`), or before draft 8 `limit=9, remaining=5, reset=30`."""
    quotas: list[Quota] = []
    for name, told in _policies(text):
        remaining = _count(told.get("r", told.get("a", "")))  # newer texts call them `a` and `w`
        reset = _count(told.get("t", told.get("w", "")))
        if remaining is not None or reset is not None:
            quotas.append(Quota(name, remaining, None if reset is None else _wait(reset), units.get(name, "")))
    flat = dict(_pair(item.strip()) for item in _ITEMS.findall(text))
    remaining, reset = _count(flat.get("remaining", "")), _count(flat.get("reset", ""))
    if remaining is not None or reset is not None:
        quotas.append(Quota("", remaining, None if reset is None else _wait(reset)))
    return quotas


def _policies(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a list of strings with parameters (RFC 9651); yield each string and its parameters."""
    for item in _ITEMS.findall(text):
        name, *parameters = [part.strip() for part in _PARTS.findall(item)] or [""]
        if name.startswith('"'):
            yield name.strip('"'), dict(_pair(parameter) for parameter in parameters)


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.strip().lower(), value.strip()


def _count(text: str) -> int | None:
    return math.floor(float(text)) if _NUMBER.fullmatch(text) else None


def _wait(seconds: float) -> float:
    return min(max(0.0, seconds), _LATEST_S)


def _date(text: str) -> datetime | None:
    """Read a date of HTTP (RFC 9110) or an instant of RFC 3339; one without a zone is UTC."""
    try:
        at = datetime.fromisoformat(text) if text[:4].isdecimal() else parsedate_to_datetime(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
