"""What a request cost, as its answer tells: by a header field, a function, or whether it counts at all."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from sluicegate.domain.arguments import Cost, read_cost
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.presentation.web.request_reader import require_functions

Blame: TypeAlias = Callable[[str, str, Exception | None], None]
"""Logs an error of the application's: the reason, by which it is throttled; the message; what was raised."""

_MOST_DIGITS: Final = 15  # 10**15 is below 2**53, up to which every storage counts exactly


class Answer:
    """An answer, before it is sent.

    Args:
        status: Its status; 500 where the application raised and had answered nothing yet.
        fields: Its header fields, by their names in lower case.
        request: What the application's functions get of the request: the ASGI scope, the WSGI environment, or the framework's
            request.
        value: Of a decorated function, what it returned.
    """

    __slots__ = ("fields", "request", "status", "value")

    def __init__(self, status: int, fields: Mapping[str, str], request: Any, value: Any = None) -> None:  # noqa: ANN401
        self.status = status
        self.fields = fields
        self.request = request
        self.value = value


AnswerTest: TypeAlias = Callable[[Answer], bool]
"""Return whether an answer counts, such as `lambda answer: answer.status == 401`."""

AnswerCost: TypeAlias = str | Callable[[Answer], Cost | None]
"""The header field in which the application tells what a request cost, or a function of the answer that returns it."""


class AnswerReader:
    """Find out what a request cost when its answer is known. What is wrong is logged, and costs what was reserved.

    Args:
        count_when: Returns whether an answer counts; what does not costs nothing. None: all count.
        answer_cost: The cost: a header field, or a function, whose None means what was reserved; None: what was reserved.
        reserves: Whether the application may tell the cost itself, by `rate_limit.commit` of the request.

    Raises:
        InvalidInputError: If `answer_cost` is no name of a header field.
        InvalidTypeError: If an argument is of the wrong type, or a function would have to be awaited.
    """

    def __init__(self, count_when: AnswerTest | None, answer_cost: AnswerCost | None, reserves: bool) -> None:
        if type(reserves) is not bool:
            raise InvalidTypeError(f"reserves={reserves!r:.80}: expected True or False")
        self.header = ""
        """The field that the application sets and no client sees; empty: there is none."""
        function: Any = answer_cost
        if isinstance(answer_cost, str):
            if not answer_cost.isascii() or not answer_cost.replace("-", "").replace("_", "").isalnum():
                raise InvalidInputError(f"answer_cost={answer_cost!r:.80}: expected a header field, such as 'X-Cost'")
            self.header = answer_cost.lower()
            function = None
        require_functions({"count_when": count_when, "answer_cost": function}, awaits=False)
        self._count_when = count_when
        self._answer_cost = function
        self.asks_answer = count_when is not None or answer_cost is not None
        """Whether the answer tells the cost; else only the application does."""
        self.wanted = self.asks_answer or reserves
        """Whether the cost of requests is reserved, until it is known."""

    def cost(self, answer: Answer, blame: Blame) -> Cost | None:
        """Return what a request cost; None: what was reserved."""
        if self._count_when is not None:
            try:
                if not self._count_when(answer):
                    return 0
            except Exception as error:  # noqa: BLE001 - a client that makes it fail is counted all the same
                blame("count_when", "count_when failed; the request counts.", error)
        cost: Any = None
        try:
            if self.header:
                text = answer.fields.get(self.header)
                cost = None if text is None else _whole_number(self.header, text)
            elif self._answer_cost is not None:
                cost = self._answer_cost(answer)
            if cost is not None:
                read_cost(cost)
        except Exception as error:  # noqa: BLE001 - whatever it is, the request was paid
            blame("answer_cost", "The answer told no cost that can be read; took what was reserved.", error)
            return None
        return cost  # type: ignore[no-any-return]  # `read_cost` has seen that it is one


def _whole_number(name: str, text: str) -> int:
    digits = text.strip()
    if not digits.isascii() or not digits.isdigit() or len(digits) > _MOST_DIGITS:
        raise InvalidInputError(f"{name}: {text!r:.40}: expected a whole number of at most {_MOST_DIGITS} digits")
    return int(digits)
