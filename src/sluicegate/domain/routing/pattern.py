"""Whether a text fits a row of literals and parameters, in time linear in the text.

A backtracking regular expression takes quadratic time and worse for `{a}-{b}-{c}` on a path of dashes, which any client may send.
Nobody here asks which characters a parameter took, only whether there is a way; that needs no backtracking.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import getitem
from string import digits, hexdigits
from typing import TypeAlias

from sluicegate.domain.routing.template import Parameter, Token, cut

Fits: TypeAlias = Callable[[str], object]
"""Return a true value for a text that fits."""

_INT = re.compile(r"[0-9]+")
_FLOAT = re.compile(r"[0-9]+(\.[0-9]+)?")
_UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")

_ONE: dict[str, Fits] = {
    "str": bool,
    "int": _INT.fullmatch,
    "float": _FLOAT.fullmatch,
    "uuid": _UUID.fullmatch,
    "path": lambda text: "\n" not in text,  # as the dot of Starlette's expression has it
}

_Step: TypeAlias = tuple[
    bool, str, int
]  # whether it takes the characters named or all others, them, and where it leads

_MAX_STATES = 1_000
_MAX_CHARACTERS = 256


def fits(tokens: Sequence[Token], *, across_segments: bool = False) -> Fits:
    """Return a function that tells whether a text fits all of the tokens.

    Args:
        tokens: Literals and parameters.
        across_segments: Whether the text may contain slashes; else the caller promises that it has none.
    """
    if all(isinstance(token, str) for token in tokens):
        return "".join(map(str, tokens)).__eq__
    if len(tokens) == 1 and isinstance(tokens[0], Parameter) and (not across_segments or tokens[0].converter != "str"):
        return _ONE[tokens[0].converter]
    if across_segments:
        return _path_and_segments(tokens) or _Automaton(tokens).fits
    if all(isinstance(token, str) or token.converter == "str" for token in tokens):
        return _glob(tokens)
    return _Automaton(tokens).fits


def _glob(tokens: Sequence[Token]) -> Fits:
    # Taking the first place where a literal occurs never spoils a later one: a `str` parameter takes what it must.
    literals: list[str] = [""]
    for token in tokens:
        if isinstance(token, str):
            literals[-1] = token
        else:
            literals.append("")
    return partial(_fits_glob, literals[0], literals[1:-1], literals[-1])


def _fits_glob(prefix: str, inner: Sequence[str], suffix: str, text: str) -> bool:
    if not (text.startswith(prefix) and text.endswith(suffix)):
        return False
    position, end = len(prefix), len(text) - len(suffix)
    for literal in inner:
        position = text.find(literal, position + 1, end)
        if position < 0:
            return False
        position += len(literal)
    return position < end


def _path_and_segments(tokens: Sequence[Token]) -> Fits | None:
    """Return the test for a `path` parameter and the segments after it, which can be counted from the right."""
    first, *others = tokens
    if first != Parameter("path") or Parameter("path") in others or not others or not isinstance(others[0], str):
        return None
    segments = cut(others)
    if len(segments[0]) > 1:
        return None
    return partial(_fits_from_right, "".join(map(str, segments[0])), [fits(segment) for segment in segments[1:]])


def _fits_from_right(suffix: str, segments: Sequence[Fits], text: str) -> bool:
    path, *parts = text.rsplit("/", len(segments))
    if len(parts) < len(segments) or not path.endswith(suffix) or "\n" in path[: len(path) - len(suffix)]:
        return False
    return all(fits_segment(part) for fits_segment, part in zip(segments, parts, strict=True))


class _Automaton:
    """A nondeterministic automaton for any row of tokens, made deterministic as far as texts ask for it."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._steps: list[list[_Step]] = [[]]
        self._optional: dict[int, int] = {}  # a state, and the one that it also is
        alphabet = set(hexdigits + ".-/\n")
        for token in tokens:
            if isinstance(token, str):
                alphabet.update(token)
                for character in token:
                    self._then(character)
            else:
                self._parameter(token.converter)
        self._alphabet = frozenset(alphabet)
        self._known: dict[frozenset[int], _State] = {}

    def fits(self, text: str) -> bool:
        """Return whether a text fits."""
        return reduce(getitem, text, self.state({0})).accepts

    def follow(self, states: frozenset[int], character: str) -> "_State":
        """Return where a character leads."""
        if character not in self._alphabet:
            character = ""  # which no step names
        return self.state(
            {
                target
                for state in states
                for named, characters, target in self._steps[state]
                if (bool(character) and character in characters) == named
            }
        )

    def state(self, states: set[int]) -> "_State":
        """Return the deterministic state for several states."""
        for state in tuple(states):
            also = self._optional.get(state)
            while also is not None:
                states.add(also)
                also = self._optional.get(also)
        several = frozenset(states)
        found = self._known.get(several)
        if found is None:
            if len(self._known) >= _MAX_STATES:
                self._known.clear()
            found = self._known[several] = _State(self, several, accepts=len(self._steps) - 1 in several)
        return found

    def _then(self, characters: str, *, named: bool = True, repeated: bool = False) -> int:
        """Add a state that is reached from the last one by one of the characters, and by more of them if repeated."""
        state = len(self._steps)
        self._steps[-1].append((named, characters, state))
        self._steps.append([(named, characters, state)] if repeated else [])
        return state

    def _also(self) -> int:
        """Add a state that the last one is as well."""
        state = len(self._steps)
        self._optional[state - 1] = state
        self._steps.append([])
        return state

    def _parameter(self, converter: str) -> None:
        match converter:
            case "str":
                self._then("/", named=False, repeated=True)
            case "path":
                # A state of its own: in the last one, a parameter before this one could go on taking what this one skips.
                state = self._also()
                self._steps[state].append((False, "\n", state))
            case "int":
                self._then(digits, repeated=True)
            case "float":
                whole = self._then(digits, repeated=True)
                self._then(".")
                self._then(digits, repeated=True)
                self._optional[whole] = self._also()
            case _:
                for length in (8, 4, 4, 4, 12):
                    for _ in range(length):
                        self._then(hexdigits)
                    if length != 12:  # noqa: PLR2004 - the last group of RFC 9562's text form has no hyphen after it
                        before = len(self._steps) - 1
                        self._optional[before] = self._then("-")


class _State(dict[str, "_State"]):
    """Where each character leads from here, worked out when it first comes."""

    def __init__(self, automaton: _Automaton, states: frozenset[int], *, accepts: bool) -> None:
        super().__init__()
        self._automaton = automaton
        self._states = states
        self.accepts = accepts

    def __missing__(self, character: str) -> "_State":
        state = self._automaton.follow(self._states, character)
        if len(self) < _MAX_CHARACTERS:  # clients choose from a million
            self[character] = state
        return state
