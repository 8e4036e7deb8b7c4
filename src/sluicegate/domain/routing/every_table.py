"""Find all endpoints that a path may belong to where the order and the parameters of the router are not known."""

from collections.abc import Sequence
from typing import Final

from sluicegate.domain.routing.segment_tree import SegmentTree
from sluicegate.domain.routing.template import Parameter, RouteTemplate, Token, cut

_TYPED: Final = frozenset({"int", "float", "uuid"})
_STR: Final = Parameter("str")
_ANY_STR: Final = Parameter("any str")
_MAX_REMEMBERED: Final = 1000  # sets of templates that fit the same path: there are few
_SPECIFICITY: Final = {"str": 3, "path": 4}  # literals 0, several tokens in a segment 1, typed parameters 2


class EveryTable:
    """The templates that match requests of one method, without an order that could hide one.

    A router takes the first declared template, or the most specific one: a literal rather than a parameter. Its `int` may take
    `-3`, as Python's does, and its `/items/` a path without the slash. Templates that a more specific one hides in every
    order stay hidden.

    Args:
        declared: The templates that match, with their place in the order of precedence.
        ignoring_case: Whether letters match in either case.
        empty_parameters: Whether a parameter may take an empty segment, as Falcon's do: `/items/` fits `/items/{id}`.
    """

    __slots__ = (
        "_alone",
        "_empties_differ",
        "_empty_parameters",
        "_ignoring_case",
        "_lenient",
        "_lenient_differs",
        "_literals",
        "_merged",
        "_specificity",
        "_strict",
        "_tokens",
        "_visible_among",
        "_with_parameters",
    )

    def __init__(
        self, declared: Sequence[tuple[int, RouteTemplate]], ignoring_case: bool, empty_parameters: bool
    ) -> None:
        self._empty_parameters = empty_parameters
        self._ignoring_case = ignoring_case
        self._specificity: dict[int, tuple[int, ...]] = {}
        self._strict = SegmentTree()
        self._lenient = SegmentTree()
        self._with_parameters = SegmentTree()  # the lenient tree without literals, which are here
        self._literals: set[str] = set()
        self._lenient_differs = False  # wherever a parameter may take more than its type says
        self._empties_differ = False  # only where a segment is empty
        self._alone: dict[int, bool] = {}
        self._visible_among: dict[tuple[int, ...], list[int]] = {}
        self._tokens: dict[int, tuple[Token, ...]] = {}
        self._merged: dict[int, list[int]] = {}  # templates that become equal to one before, which the lenient tree has
        taken: set[tuple[Token, ...]] = set()
        for order, template in declared:
            tokens = _folded(template.tokens) if ignoring_case else template.tokens
            self._specificity[order] = tuple([_rank(segment) for segment in cut(tokens)])
            self._tokens[order] = tokens
            taken.add(tokens)
        loosened: dict[tuple[Token, ...], tuple[int, tuple[Token, ...]]] = {}
        for order, tokens in self._tokens.items():
            for form in _forms(tokens, taken):
                loose = self._loosened(form)
                first, strict = loosened.setdefault(loose, (order, form))
                if strict != form:
                    self._merged.setdefault(first, []).append(order)
                if _filled(loose) != form:
                    self._lenient_differs = True
                elif loose != form:
                    self._empties_differ = True
                self._strict.add(order, form)
                self._lenient.add(order, loose)
                literal = "".join([token for token in loose if isinstance(token, str)])
                if loose == (literal,):
                    self._literals.add(literal)
                else:
                    self._with_parameters.add(order, loose)

    def is_alone(self, order: int, path: str) -> bool:
        """Return whether a path that fits a template may belong to no other one.

        Whether any template with parameters may take such a path is found out once; then only a literal may be the path.
        """
        alone = self._alone.get(order)
        if alone is None:
            alone = not self._merged and not self._with_parameters.overlaps(order, self._tokens[order])
            self._alone[order] = alone
        if not alone:
            return False
        if self._ignoring_case:
            path = path.casefold()
        return path not in self._literals or len(self._tokens[order]) == 1

    def find(self, path: str) -> list[int]:
        """Return the places of the templates that may take a path, the one that comes first by the strict order first."""
        if self._ignoring_case:
            path = path.casefold()
        lenient = self._lenient.search_all(path)
        if self._merged:
            lenient = sorted({*lenient, *[place for one in lenient for place in self._merged.get(one, ())]})
        if len(lenient) < 2:  # noqa: PLR2004 - the strict tree has none that this one has not
            return lenient
        found = self._visible(lenient)
        if self._lenient_differs or (self._empties_differ and ("//" in path or path.endswith("/"))):
            strict = self._strict.search_all(path)
            if strict != lenient:
                found = list(dict.fromkeys([*self._visible(strict), *found]))
        return found

    def _loosened(self, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
        """Return a template whose parameters take whatever some router's would."""
        loose: list[Token] = []
        for at, token in enumerate(tokens):
            if isinstance(token, str) or token.converter == "path":
                loose.append(token)
                continue
            whole = _begins_segment(tokens, at) and _ends_segment(tokens, at)
            typed = token.converter in _TYPED
            if whole and (typed or self._empty_parameters):
                loose.append(Parameter(f"any {token.converter}"))
            else:
                loose.append(Parameter("str"))
        return tuple(loose)

    def _visible(self, places: list[int]) -> list[int]:
        """Return the first declared of some places and those that no other one is more specific than."""
        if len(places) < 2:  # noqa: PLR2004 - one hides no other
            return places
        key = tuple(places)
        visible = self._visible_among.get(key)
        if visible is None:
            first = min(places)
            visible = [first]
            visible += [place for place in places if place != first and not self._is_hidden(place, places)]
            if len(self._visible_among) >= _MAX_REMEMBERED:
                self._visible_among.clear()
            self._visible_among[key] = visible
        return visible

    def _is_hidden(self, place: int, places: list[int]) -> bool:
        return any(other != place and self._hides(other, place) for other in places)

    def _hides(self, one: int, other: int) -> bool:
        """Return whether one template is more specific than another wherever they differ."""
        mine, theirs = self._specificity[one], self._specificity[other]
        differ = False
        for a, b in zip(mine, theirs, strict=False):
            if a > b:
                return False
            differ = differ or a < b
        return differ


def _rank(segment: tuple[Token, ...]) -> int:
    if any(isinstance(token, Parameter) and token.converter == "path" for token in segment):
        return _SPECIFICITY["path"]
    if len(segment) > 1:
        return 1
    if not segment or isinstance(segment[0], str):
        return 0
    return _SPECIFICITY.get(segment[0].converter, 2)


def _forms(tokens: tuple[Token, ...], taken: set[tuple[Token, ...]]) -> list[tuple[Token, ...]]:
    """Return a template as it is, and without its last slash if no other template is that."""
    last = tokens[-1]
    if not isinstance(last, str) or not last.endswith("/") or tokens == ("/",):
        return [tokens]
    shorter = (*tokens[:-1], last[:-1]) if last != "/" else tokens[:-1]
    return [tokens] if shorter in taken else [tokens, shorter]


def _filled(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """Return a loosened template as it is for segments that are not empty."""
    return tuple([_STR if token == _ANY_STR else token for token in tokens])


def _folded(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    return tuple([token.casefold() if isinstance(token, str) else token for token in tokens])


def _begins_segment(tokens: tuple[Token, ...], at: int) -> bool:
    before = tokens[at - 1]
    return isinstance(before, str) and before.endswith("/")


def _ends_segment(tokens: tuple[Token, ...], at: int) -> bool:
    if at + 1 == len(tokens):
        return True
    after = tokens[at + 1]
    return isinstance(after, str) and after.startswith("/")
