"""Tell whether a text matches a sequence of literals and parameters, in time linear in the text.

A backtracking regular expression takes quadratic time and worse for `{a}-{b}-{c}` on a path of dashes, which any client may
send. Only whether a text matches is needed, not which characters a parameter took, and that can be told without
backtracking.
"""

import re
from collections.abc import Sequence

from sluicegate.domain.routing.automaton import Automaton
from sluicegate.domain.routing.template import Parameter, Token, cut


class Pattern:
    """A test of a text."""

    __slots__ = ()

    def matches(self, text: str) -> bool:
        """Return whether the whole text matches."""
        raise NotImplementedError


def compile_pattern(tokens: Sequence[Token], *, across_segments: bool = False) -> Pattern:
    """Return the cheapest pattern for a sequence of tokens.

    Args:
        tokens: Literals and parameters.
        across_segments: Whether the text may contain slashes; if not, the caller promises that it has none.
    """
    if all(isinstance(token, str) for token in tokens):
        return _Literal("".join(map(str, tokens)))
    if len(tokens) == 1 and isinstance(tokens[0], Parameter) and (not across_segments or tokens[0].converter != "str"):
        return _BY_CONVERTER[tokens[0].converter]
    if across_segments:
        return _path_then_segments(tokens) or AutomatonPattern(tokens)
    if all(isinstance(token, str) or token.converter == "str" for token in tokens):
        return _Glob(tokens)
    return AutomatonPattern(tokens)


class _Literal(Pattern):
    """One text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def matches(self, text: str) -> bool:
        return text == self._text


class _NotEmpty(Pattern):
    """A `str` parameter that is a whole segment."""

    __slots__ = ()

    def matches(self, text: str) -> bool:
        return text != ""


class _NoNewline(Pattern):
    """A `path` parameter: Starlette's `.*`, whose dot matches no newline."""

    __slots__ = ()

    def matches(self, text: str) -> bool:
        return "\n" not in text


class _RegularExpression(Pattern):
    """A parameter whose expression cannot backtrack."""

    __slots__ = ("_expression",)

    def __init__(self, expression: str) -> None:
        self._expression = re.compile(expression)

    def matches(self, text: str) -> bool:
        return self._expression.fullmatch(text) is not None


_BY_CONVERTER: dict[str, Pattern] = {
    "str": _NotEmpty(),
    "int": _RegularExpression(r"[0-9]+"),
    "float": _RegularExpression(r"[0-9]+(\.[0-9]+)?"),
    "uuid": _RegularExpression(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}"),
    "path": _NoNewline(),
    # What the converters of other routers take: as much as Python's own types do.
    "any str": _RegularExpression("(?s:.*)"),
    "any int": _RegularExpression(r"\s*[+-]?[\d_]+\s*"),
    "any float": _RegularExpression(r"(?i:\s*[+-]?(?:[\d_]*(?:\.[\d_]*)?(?:e[+-]?[\d_]+)?|inf|infinity|nan)\s*)"),
    "any uuid": _RegularExpression(r"(?i:\s*(?:urn:)?(?:uuid:)?[{]?[0-9a-f-]{32,80}[}]?\s*)"),
}


class _Glob(Pattern):
    """Literals and `str` parameters in one segment.

    Taking the first place where a literal occurs is enough: whatever comes before it belongs to a `str` parameter, which may
    be as long as it likes but not empty.

    Args:
        tokens: The literals and parameters, in turn.
    """

    __slots__ = ("_inner", "_prefix", "_suffix")

    def __init__(self, tokens: Sequence[Token]) -> None:
        literals: list[str] = [""]
        for token in tokens:
            if isinstance(token, str):
                literals[-1] = token
            else:
                literals.append("")
        self._prefix = literals[0]
        self._inner = literals[1:-1]
        self._suffix = literals[-1]

    def matches(self, text: str) -> bool:
        if not (text.startswith(self._prefix) and text.endswith(self._suffix)):
            return False
        position, end = len(self._prefix), len(text) - len(self._suffix)
        for literal in self._inner:
            position = text.find(literal, position + 1, end)
            if position < 0:
                return False
            position += len(literal)
        return position < end


class _PathThenSegments(Pattern):
    """A `path` parameter and a known number of segments after it, which are found from the right.

    Args:
        suffix: The literal right after the path parameter, in the same segment.
        segments: The segments after that one.
    """

    __slots__ = ("_segments", "_suffix")

    def __init__(self, suffix: str, segments: list[Pattern]) -> None:
        self._suffix = suffix
        self._segments = segments

    def matches(self, text: str) -> bool:
        count = len(self._segments)
        parts = text.rsplit("/", count)
        if len(parts) <= count:
            return False
        path = parts[0]
        if not path.endswith(self._suffix) or "\n" in path[: len(path) - len(self._suffix)]:
            return False
        for number in range(count):  # noqa: SIM110 - a generator costs more than the loop
            if not self._segments[number].matches(parts[number + 1]):
                return False
        return True


class AutomatonPattern(Pattern):
    """Any sequence of tokens.

    Args:
        tokens: The sequence.
    """

    __slots__ = ("automaton",)

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.automaton = Automaton(tokens)

    def matches(self, text: str) -> bool:
        """Return whether the whole text matches."""
        return self.automaton.matches(text)


def _path_then_segments(tokens: Sequence[Token]) -> Pattern | None:
    """Return a pattern that reads from the right; None if the tokens are not a `path` parameter and whole segments."""
    first, *others = tokens
    if first != Parameter("path") or Parameter("path") in others or not others or not isinstance(others[0], str):
        return None
    segments = cut(others)
    if len(segments[0]) > 1:
        return None
    return _PathThenSegments("".join(map(str, segments[0])), [compile_pattern(segment) for segment in segments[1:]])
