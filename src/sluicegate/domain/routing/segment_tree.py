"""A tree of path segments, in which templates with parameters are looked up."""

from collections.abc import Sequence
from typing import Final

from sluicegate.domain.routing.affix_index import AffixIndex
from sluicegate.domain.routing.pattern import Pattern, compile_pattern
from sluicegate.domain.routing.template import Parameter, Token, cut, join

NEVER: Final = 1 << 60
"""The place of a template that does not match: behind all others."""


class SegmentTree:
    """Find the first template that matches a path.

    A template is known by its place in the order of precedence, from 0. The cost of a look-up depends on the path and on how
    many alternatives there are at one place of the tree, not on the number of templates.
    """

    __slots__ = ("_before", "_depth", "root")

    def __init__(self) -> None:
        self._before = _Node()  # before the first slash
        self.root = self._before.child(())
        self._depth = 0

    def add(self, order: int, tokens: tuple[Token, ...]) -> None:
        """Add a template.

        Args:
            order: Its place in the order of precedence.
            tokens: Its path.
        """
        segments = cut(tokens)[1:]  # nothing stands before the first slash
        node = self.root
        node.first = min(node.first, order)
        for depth, segment in enumerate(segments):
            if any(isinstance(token, Parameter) and token.converter == "path" for token in segment):
                node.add_tail(order, segments[depth:])
                return
            node = node.child(segment)
            node.first = min(node.first, order)
            self._depth = max(self._depth, depth + 1)
        node.end = min(node.end, order)

    def search(self, path: str) -> int:
        """Return the place of the first template that matches, `NEVER` if none does."""
        # Slashes beyond the deepest template are not cut at: only a `path` parameter can take them.
        segments = path.split("/", self._depth + 1)
        node = self._before
        for depth, segment in enumerate(segments):  # as long as there is only one way to go
            if node.forks:
                return _search_all_ways(node, path, segments, depth)
            child = node.literals.get(segment)
            parameter = node.only_parameter
            if parameter is not None:
                if child is not None:
                    return _search_all_ways(node, path, segments, depth)
                pattern = parameter.pattern
                if pattern is None or not pattern.matches(segment):
                    return NEVER
                child = parameter
            elif child is None:
                return NEVER
            node = child
        return node.end

    def search_all(self, path: str) -> list[int]:
        """Return the places of all templates that match, in ascending order; of those with the same path the first."""
        segments = path.split("/", self._depth + 1)
        count = len(segments)
        found: list[int] = []
        waiting = [(self._before, 0, 0)]
        while waiting:
            node, depth, offset = waiting.pop()
            if depth == count:
                if node.end != NEVER:
                    found.append(node.end)
                continue
            if node.tails is not None:
                found.extend(node.tails.find(path[offset:]))
            segment = segments[depth]
            depth += 1
            offset += len(segment) + 1
            waiting += [(child, depth, offset) for child in node.followers(segment)]
        if len(found) > 1:
            found = sorted(set(found))
        return found

    def overlaps(self, order: int, tokens: tuple[Token, ...]) -> bool:
        """Return whether some path may fit a template and one of another place in this tree; True where it is not certain.

        Args:
            order: The template's place.
            tokens: Its path.
        """
        segments = cut(tokens)
        waiting = [(self._before, 0)]
        while waiting:
            node, depth = waiting.pop()
            if node.has_tail_other_than(order):
                return True
            if depth == len(segments):
                if node.end not in {NEVER, order}:
                    return True
                continue
            segment = segments[depth]
            if any(isinstance(token, Parameter) and token.converter == "path" for token in segment):
                if node.has_other_than(order):
                    return True
            elif not segment or (len(segment) == 1 and isinstance(segment[0], str)):
                waiting += [(child, depth + 1) for child in node.followers("".join(map(str, segment)))]
            else:
                waiting += [(child, depth + 1) for child in node.children()]
        return False


class _Node:
    """A place in the tree, and the segments that may follow there.

    Args:
        pattern: What the segment that leads here must match; None where the tree has looked it up already.
    """

    __slots__ = (
        "composite",
        "composite_index",
        "end",
        "first",
        "forks",
        "literals",
        "only_parameter",
        "parameters",
        "pattern",
        "tails",
    )

    def __init__(self, pattern: Pattern | None = None) -> None:
        self.pattern = pattern
        self.first = NEVER  # the first template in this part of the tree; no other one here can precede it
        self.end = NEVER  # the first template that ends here
        self.literals: dict[str, _Node] = {}
        self.parameters: dict[str, _Node] = {}  # segments that are one parameter, by converter
        self.only_parameter: _Node | None = None  # the one in `parameters`, if there is exactly one
        self.composite: dict[tuple[Token, ...], _Node] = {}  # segments of several tokens
        self.composite_index: AffixIndex[_Node] = AffixIndex()
        self.tails: AffixIndex[int] | None = None  # templates whose `path` parameter begins in the next segment
        self.forks = False  # whether there is more to try than a literal and one parameter

    def child(self, segment: tuple[Token, ...]) -> "_Node":
        """Return the node that a segment of a template leads to, and make it if needed."""
        if not segment:
            return self._literal("")
        token = segment[0]
        if len(segment) > 1:
            return self._composite(segment)
        if isinstance(token, str):
            return self._literal(token)
        node = self.parameters.get(token.converter)
        if node is None:
            node = self.parameters[token.converter] = _Node(compile_pattern(segment))
            self.only_parameter = node
            self.forks = self.forks or len(self.parameters) > 1
        return node

    def followers(self, segment: str) -> list["_Node"]:
        """Return the nodes that a segment of a path leads to, in no particular order."""
        found = self.composite_index.find(segment) if self.composite else []
        for child in self.parameters.values():
            pattern = child.pattern
            if pattern is not None and pattern.matches(segment):
                found.append(child)
        literal = self.literals.get(segment)
        if literal is not None:
            found.append(literal)
        return found

    def children(self) -> list["_Node"]:
        """Return all nodes that a segment may lead to."""
        return [*self.literals.values(), *self.parameters.values(), *self.composite.values()]

    def has_tail_other_than(self, order: int) -> bool:
        """Return whether a `path` parameter of a template of another place begins in the next segment."""
        return self.tails is not None and any(place != order for place in self.tails.values())

    def has_other_than(self, order: int) -> bool:
        """Return whether this part of the tree has a template of another place."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            if node.end not in {NEVER, order} or node.has_tail_other_than(order):
                return True
            waiting += node.children()
        return False

    def _literal(self, text: str) -> "_Node":
        node = self.literals.get(text)
        if node is None:
            node = self.literals[text] = _Node()
        return node

    def _composite(self, segment: tuple[Token, ...]) -> "_Node":
        self.forks = True
        node = self.composite.get(segment)
        if node is None:
            node = self.composite[segment] = _Node()
            prefix, middle, suffix = _affixes(segment)
            self.composite_index.add(prefix, suffix, compile_pattern(middle), node)
        return node

    def add_tail(self, order: int, segments: Sequence[tuple[Token, ...]]) -> None:
        """Add a template that goes on from here with a `path` parameter, which may take any number of segments."""
        self.forks = True
        if self.tails is None:
            self.tails = AffixIndex()
        prefix, middle, suffix = _affixes(join(segments))
        self.tails.add(prefix, suffix, compile_pattern(middle, across_segments=True), order)


def _search_all_ways(start: _Node, path: str, segments: list[str], depth: int) -> int:
    """Return the place of the first template that matches, among those of one part of the tree.

    Args:
        start: The root of that part.
        path: The whole path.
        segments: Its segments.
        depth: How many of them lead to the start.
    """
    count = len(segments)
    best = NEVER
    waiting = [(start, depth, sum(map(len, segments[:depth])) + depth)]
    while waiting:
        node, depth, offset = waiting.pop()  # `offset` is where the next segment begins in the path
        if node.first >= best:
            continue
        if depth == count:
            best = min(best, node.end)
            continue
        if node.tails is not None:
            for order in node.tails.find(path[offset:]):
                best = min(best, order)
        segment = segments[depth]
        depth += 1
        offset += len(segment) + 1
        waiting += [(child, depth, offset) for child in node.followers(segment)]
    return best


def _affixes(tokens: tuple[Token, ...]) -> tuple[str, tuple[Token, ...], str]:
    """Return the literals at the two ends (empty if there is none), and the tokens between them."""
    prefix = tokens[0] if isinstance(tokens[0], str) else ""
    suffix = tokens[-1] if isinstance(tokens[-1], str) else ""
    return prefix, tokens[1 if prefix else 0 : len(tokens) - 1 if suffix else len(tokens)], suffix
