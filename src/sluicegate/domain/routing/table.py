"""Which endpoint a request belongs to: the first declared template that fits, as Starlette's router has it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sluicegate.domain.routing.affix_index import AffixIndex
from sluicegate.domain.routing.pattern import Fits, fits
from sluicegate.domain.routing.template import Parameter, RouteTemplate, Token, cut, join

_NEVER: Final = 1 << 62


class RouteTable:
    """Match requests to templates.

    The templates of a method form a tree of path segments; those that are one literal stand in a dictionary. What a match
    costs depends on the path and on how many alternatives a place in the tree has, not on the number of templates.

    Args:
        templates: The templates in the order in which they were declared, which is the order of their precedence.
    """

    __slots__ = ("_any", "_by_method")

    def __init__(self, templates: Iterable[RouteTemplate]) -> None:
        declared = tuple(templates)
        methods = {template.method for template in declared}
        if "GET" in methods:
            methods.add("HEAD")
        self._by_method = {method: _MethodTable(declared, _answered_by(method)) for method in methods}
        self._any = _MethodTable(declared, ("*",))

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint of the first declared template that fits.

        Args:
            method: The request's method in capitals, or `WEBSOCKET`. `HEAD` is answered by what answers `GET`.
            path: The path, decoded, without the query: ASGI's `path` less its `root_path`.
        """
        return self.matcher(method)(path)

    def matcher(self, method: str) -> Callable[[str], str | None]:
        """Return what `match` does for a method, from the path alone."""
        return self._by_method.get(method, self._any).match


def _answered_by(method: str) -> tuple[str, ...]:
    return ("HEAD", "GET", "*") if method == "HEAD" else (method, "*")


class _Node:
    """A place in the tree: what may follow the segments that lead here."""

    __slots__ = ("composite", "end", "first", "forks", "literals", "only", "tails", "typed")

    def __init__(self) -> None:
        self.first = _NEVER  # the first template below here; nothing below can precede it
        self.end = _NEVER  # the first template that ends here
        self.literals: dict[str, _Node] = {}
        self.typed: dict[str, tuple[Fits, _Node]] = {}  # a segment that is one parameter, by converter
        self.composite: tuple[dict[tuple[Token, ...], _Node], AffixIndex[_Node]] | None = None
        self.tails: AffixIndex[int] | None = None  # what goes on to the end of the path, whatever its segments
        self.only: tuple[Fits, _Node] | None = None  # the parameter of `typed`, if there is one
        self.forks = False  # whether there is more to try than a literal and that parameter

    def child(self, segment: tuple[Token, ...]) -> "_Node":
        """Return the node that a segment of a template leads to."""
        if not segment or (len(segment) == 1 and isinstance(segment[0], str)):
            return self.literals.setdefault(str(segment[0]) if segment else "", _Node())
        if len(segment) == 1:
            self.only = self.typed.setdefault(_parameter(segment[0]), (fits(segment), _Node()))
            self.forks = self.forks or len(self.typed) > 1
            return self.only[1]
        self.forks = True
        if self.composite is None:
            self.composite = ({}, AffixIndex())
        known, index = self.composite
        node = known.get(segment)
        if node is None:
            node = known[segment] = _Node()
            prefix, middle, suffix = _affixes(segment)
            index.add(prefix, suffix, fits(middle), node)
        return node


class _MethodTable:
    """The templates that answer one method."""

    __slots__ = ("_before", "_depth", "_literals", "_names", "_root")

    def __init__(self, declared: Sequence[RouteTemplate], methods: tuple[str, ...]) -> None:
        self._names = [template.endpoint for template in declared]
        self._before = _Node()  # what stands before the first slash: nothing
        self._root = self._before.literals[""] = _Node()
        self._depth = 0
        literals: dict[str, int] = {}
        for order, template in enumerate(declared):
            if template.method not in methods:
                continue
            if len(template.tokens) == 1:
                literals.setdefault(str(template.tokens[0]), order)
            else:
                self._add(order, template.tokens)
        self._literals = {path: min(order, self._search(path)) for path, order in literals.items()}

    def match(self, path: str) -> str | None:
        """Return the endpoint of the first template that fits."""
        found = self._literals.get(path)
        if found is None:
            found = self._search(path)
        if "\n" in path and path.endswith("\n"):
            # Starlette's expressions end with `$`, which also matches before a last newline. A client may send one, as %0A.
            before = self._literals.get(path[:-1])
            found = min(found, self._search(path[:-1]) if before is None else before)
        return None if found == _NEVER else self._names[found]

    def _add(self, order: int, tokens: tuple[Token, ...]) -> None:
        segments = cut(tokens)[1:]  # before the first slash is nothing
        node = self._root
        node.first = min(node.first, order)
        for depth, segment in enumerate(segments):
            if any(isinstance(token, Parameter) and token.converter == "path" for token in segment):
                _add_tail(node, order, segments[depth:])
                return
            node = node.child(segment)
            node.first = min(node.first, order)
            self._depth = max(self._depth, depth + 1)
        node.end = min(node.end, order)

    def _search(self, path: str) -> int:
        # Slashes beyond the deepest template are not cut at: what they separate can only belong to a tail.
        segments = path.split("/", self._depth + 1)
        node = self._before
        for segment in segments:  # as long as there is one way
            if node.forks:
                return self._search_all_ways(path, segments)
            child, only = node.literals.get(segment), node.only
            if only is not None:
                if child is not None:
                    return self._search_all_ways(path, segments)
                test, child = only
                if not test(segment):
                    return _NEVER
            elif child is None:
                return _NEVER
            node = child
        return node.end

    def _search_all_ways(self, path: str, segments: list[str]) -> int:
        count = len(segments)
        best = _NEVER
        waiting = [(self._root, 1)]
        while waiting:
            node, depth = waiting.pop()
            if node.first >= best:
                continue
            if depth == count:
                best = min(best, node.end)
                continue
            if node.tails is not None:
                rest = path[depth + sum(map(len, segments[:depth])) :]
                best = min(best, min(node.tails.find(rest), default=best))
            segment = segments[depth]
            depth += 1
            if node.composite is not None:
                waiting += [(child, depth) for child in node.composite[1].find(segment)]
            for test, child in node.typed.values():
                if test(segment):
                    waiting.append((child, depth))
            literal = node.literals.get(segment)
            if literal is not None:
                waiting.append((literal, depth))
        return best


def _affixes(tokens: tuple[Token, ...]) -> tuple[str, tuple[Token, ...], str]:
    """Return the literals at the ends, and what stands between them."""
    prefix = tokens[0] if isinstance(tokens[0], str) else ""
    suffix = tokens[-1] if isinstance(tokens[-1], str) else ""
    return prefix, tokens[bool(prefix) : len(tokens) - bool(suffix)], suffix


def _add_tail(node: _Node, order: int, segments: Sequence[tuple[Token, ...]]) -> None:
    prefix, middle, suffix = _affixes(join(segments))
    node.forks = True
    if node.tails is None:
        node.tails = AffixIndex()
    node.tails.add(prefix, suffix, fits(middle, across_segments=True), order)


def _parameter(token: Token) -> str:
    return token.converter if isinstance(token, Parameter) else ""
