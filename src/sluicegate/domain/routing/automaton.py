"""Match any sequence of literals and parameters in one pass over the text.

A nondeterministic automaton, made deterministic only as far as the texts that come need it.
"""

from collections.abc import Sequence
from string import digits, hexdigits
from typing import TypeAlias

from sluicegate.domain.routing.template import Token

_MAX_STATES = 1_000
_MAX_CHARACTERS = 256  # cached per state; a client can choose from a million

_OTHER = ""  # stands for every character that no template step names

_Step: TypeAlias = tuple[
    bool, str, int
]  # takes these characters (True) or all but these (False), and goes to this state


class State:
    """A set of states of the nondeterministic automaton.

    Args:
        members: Their numbers.
        accepts: Whether a text may end here.
    """

    __slots__ = ("accepts", "members", "next")

    def __init__(self, members: frozenset[int], *, accepts: bool) -> None:
        self.members = members
        self.accepts = accepts
        self.next: dict[str, State] = {}
        """The states that characters lead to, added when a character is first seen."""


class Automaton:
    """Match texts against a sequence of literals and parameters.

    Args:
        tokens: The sequence. A parameter may match any of the converters' texts, slashes included for `path`.
    """

    __slots__ = ("_alphabet", "_optional", "_states", "_steps")

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._steps: list[list[_Step]] = [[]]
        self._optional: dict[int, int] = {}  # from a state to the one that is reached from it without a character
        alphabet = set(hexdigits + ".-/\n")
        for token in tokens:
            if isinstance(token, str):
                alphabet.update(token)
                for character in token:
                    self._add_step(character)
            else:
                self._add_parameter(token.converter)
        self._alphabet = frozenset(alphabet)
        self._states: dict[frozenset[int], State] = {}

    def matches(self, text: str) -> bool:
        """Return whether the whole text matches."""
        state = self._state({0})
        for character in text:
            following = state.next.get(character)
            if following is None:
                following = self._follow(state, character)
            state = following
        return state.accepts

    def cached_states(self) -> list[State]:
        """Return the deterministic states that are cached at the moment."""
        return list(self._states.values())

    def _follow(self, state: State, character: str) -> State:
        known = character if character in self._alphabet else _OTHER
        members: set[int] = set()
        for member in state.members:
            for included, characters, target in self._steps[member]:
                if (known != _OTHER and known in characters) == included:
                    members.add(target)
        following = self._state(members)
        if len(state.next) < _MAX_CHARACTERS:
            state.next[character] = following
        return following

    def _state(self, members: set[int]) -> State:
        for member in tuple(members):
            skipped = self._optional.get(member)
            while skipped is not None:
                members.add(skipped)
                skipped = self._optional.get(skipped)
        key = frozenset(members)
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= _MAX_STATES:
                self._states.clear()
            state = State(key, accepts=len(self._steps) - 1 in key)
            self._states[key] = state
        return state

    def _add_step(self, characters: str, *, included: bool = True, repeated: bool = False) -> int:
        """Append a state that the last one reaches by one of the characters, or by several of them if repeated.

        Args:
            characters: The characters.
            included: Whether these characters are taken; else all others are.
            repeated: Whether more than one may follow.

        Returns:
            The new state's number.
        """
        state = len(self._steps)
        self._steps[-1].append((included, characters, state))
        self._steps.append([(included, characters, state)] if repeated else [])
        return state

    def _add_optional(self) -> int:
        """Append a state that the last one reaches without a character, and return its number."""
        state = len(self._steps)
        self._optional[state - 1] = state
        self._steps.append([])
        return state

    def _add_parameter(self, converter: str) -> None:
        if converter == "str":
            self._add_step("/", included=False, repeated=True)
        elif converter == "path":
            # A new state: if the last one repeated instead, a parameter before this one could take what this one skips.
            state = self._add_optional()
            self._steps[state].append((False, "\n", state))
        elif converter == "int":
            self._add_step(digits, repeated=True)
        elif converter == "float":
            whole = self._add_step(digits, repeated=True)
            self._add_step(".")
            self._add_step(digits, repeated=True)
            self._optional[whole] = self._add_optional()
        else:
            self._add_uuid()

    def _add_uuid(self) -> None:
        for length in (8, 4, 4, 4, 12):
            for _ in range(length):
                self._add_step(hexdigits)
            if length != 12:  # noqa: PLR2004 - the last group of RFC 9562's text form has no hyphen after it
                before = len(self._steps) - 1
                self._optional[before] = self._add_step("-")
