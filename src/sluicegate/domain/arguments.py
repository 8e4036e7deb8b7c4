"""What a valid endpoint, identifier and cost is. Nothing else decides it.

Any `str` counts as its text and any whole number as its value, whatever subclass carries it: the members of enumerations hash
and print in ways of their own, and would name buckets that no other process finds.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final, TypeAlias, cast

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError

Endpoint: TypeAlias = str | StrEnum
"""Method and path template, such as `POST /api/v1/sessions`, or any name that the rules have: 1 to 1024 bytes."""

Identifier: TypeAlias = str | Mapping[str, str]
"""The client: one text for every scope, or one for each scope where an endpoint's rules count different things."""

Cost: TypeAlias = int | IntEnum | Mapping[str, int]
"""Tokens to take; 0: the rule's own cost. Or a mapping from a rule's name to tokens, of which 0 are none."""

Seconds: TypeAlias = float | IntEnum
"""How long a reservation or a hold lasts: 0.001 to 86,400. Not `float` alone: compiled code would refuse another type with an
error that names no field, and take `True` for a second."""

MAX_HOLD_SECONDS: Final = 86_400
"""The longest that a hold or a reservation lasts without being renewed: a day."""

MAX_TEXT_BYTES: Final = 1024
"""The longest identifier or endpoint, in UTF-8: more is an attack on the storage's memory, or a mistake."""

CERTAINLY_SHORT: Final = MAX_TEXT_BYTES // 4
"""Characters of a text that need not be measured: UTF-8 takes at most four bytes for each."""


def plain_text(value: str) -> str:
    """Return the text that a string holds, as a `str` and no subclass.

    The members of `class Name(str, Enum)` print as `Name.MEMBER`, and a subclass may hash and compare as it likes.
    """
    return value if type(value) is str else str.__str__(value)


def require_text(field: str, value: object) -> str:
    """Return the plain text of a string that is not empty and at most 1 KiB long.

    Raises:
        InvalidTypeError: If the value is not a string.
        InvalidInputError: If it is empty or longer than 1024 bytes of UTF-8. A long value is not repeated whole.
    """
    if not isinstance(value, str):
        raise InvalidTypeError(f"{field}={value!r:.80}: expected a string, not {type(value).__name__}")
    text = plain_text(value)
    if not text:
        raise InvalidInputError(f"{field}='': expected a string that is not empty")
    if len(text) > CERTAINLY_SHORT:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > MAX_TEXT_BYTES:
            raise InvalidInputError(f"{field}={text[:40]!r}…: {size} bytes long, expected at most {MAX_TEXT_BYTES}")
    return text


def require_identifier(identifier: object) -> str | dict[str, str]:
    """Return an identifier as plain text, or a mapping of plain texts.

    Raises:
        InvalidTypeError: If it is neither a string nor a mapping of strings.
        InvalidInputError: If it is an empty mapping, or a text is empty or longer than 1024 bytes of UTF-8.
    """
    if not isinstance(identifier, Mapping):
        return require_text("identifier", identifier)
    named: dict[str, str] = {}
    for scope, name in cast("Mapping[object, object]", identifier).items():
        named[require_text("identifier: scope", scope)] = require_text(f"identifier[{scope!r:.80}]", name)
    if not named:
        raise InvalidInputError("identifier={}: expected an entry for each scope of the endpoint's rules")
    return named


def require_cost(cost: object) -> int:
    """Return a cost as a plain number.

    Raises:
        InvalidTypeError: If it is not a whole number; `True` and `False` are none.
        InvalidInputError: If it is negative.
    """
    if not isinstance(cost, int) or isinstance(cost, bool):
        raise InvalidTypeError(f"cost={cost!r:.80}: expected a whole number, not {type(cost).__name__}")
    number = int(cost)
    if number < 0:
        raise InvalidInputError(f"cost={number}: expected 0 (the rule's own cost) or more")
    return number


def read_cost(cost: object) -> tuple[int, dict[str, int] | None]:
    """Return a cost as a plain number, and the costs by rule, if that is what was given; the number is 0 then.

    Raises:
        InvalidTypeError: If a cost is not a whole number, or the name of a rule not a string.
        InvalidInputError: If a cost is negative, or a mapping is empty.
    """
    if type(cost) is int and cost >= 0:
        return cost, None
    if isinstance(cost, Mapping):
        return 0, _require_costs(cast("Mapping[object, object]", cost))
    return require_cost(cost), None


def _require_costs(costs: Mapping[object, object]) -> dict[str, int]:
    named: dict[str, int] = {}
    for name, cost in costs.items():
        policy = require_text("cost: rule", name)
        try:
            named[policy] = require_cost(cost)
        except InvalidTypeError:
            raise InvalidTypeError(f"cost[{name!r:.80}]={cost!r:.80}: expected a whole number") from None
        except InvalidInputError:
            raise InvalidInputError(f"cost[{name!r:.80}]={cost}: expected 0 or more") from None
    if not named:
        raise InvalidInputError("cost={}: expected the cost of at least one rule")
    return named


def require_duration_us(field_name: str, value: object) -> int:
    """Return a duration of a hold or a reservation, given in seconds, in microseconds; see `require_seconds`."""
    if type(value) is int and 1 <= value <= MAX_HOLD_SECONDS:
        return value * 1_000_000
    return round(require_seconds(field_name, value) * 1_000_000)


def require_seconds(field_name: str, value: object) -> float:
    """Return a duration of a hold or a reservation.

    Raises:
        InvalidInputError: If it is not 0.001 to 86,400.
        InvalidTypeError: If it is no number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{field_name}={value!r}: expected a number of seconds")
    if not 0.001 <= value <= MAX_HOLD_SECONDS:  # noqa: PLR2004 - stated in the message; NaN is no such number either
        raise InvalidInputError(f"{field_name}={value!r}: expected 0.001 to {MAX_HOLD_SECONDS} seconds")
    return value
