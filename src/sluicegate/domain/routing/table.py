"""Find the endpoint that a request belongs to: the first declared template that matches, as in Starlette's router."""

from collections.abc import Iterable, Sequence

from sluicegate.domain.routing.every_table import EveryTable
from sluicegate.domain.routing.segment_tree import NEVER, SegmentTree
from sluicegate.domain.routing.template import A_MESSAGE, MESSAGE, RouteTemplate


class RouteTable:
    """Match requests to templates.

    The cost of a match does not depend on the number of templates.

    Args:
        templates: The templates in order of precedence, which is the order in which they were declared.
    """

    __slots__ = ("_any", "_by_method", "_declared", "_every")

    def __init__(self, templates: Iterable[RouteTemplate]) -> None:
        declared = tuple(templates)
        self._declared = declared
        methods = {template.method for template in declared} - {MESSAGE} | {A_MESSAGE}
        if "GET" in methods:
            methods.add("HEAD")
        self._by_method = {method: _MethodTable(declared, method, _template_methods(method)) for method in methods}
        self._any = _MethodTable(declared, "*", ("*",))
        self._every: dict[tuple[str, bool, bool], EveryTable] = {}  # built when first asked: few applications need them

    def __reduce__(self) -> tuple[type["RouteTable"], tuple[tuple[RouteTemplate, ...]]]:
        # Compiled classes cannot be copied or pickled attribute by attribute.
        return RouteTable, (self._declared,)

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint of the first declared template that matches; None if none does.

        Args:
            method: The request's method in capitals, `WEBSOCKET`, or `A_MESSAGE`. Templates for `GET` match `HEAD` as well.
            path: The path, decoded, without the query: ASGI's `path` without its `root_path`.
        """
        return self._by_method.get(method, self._any).match(path)

    def match_every(
        self, method: str, path: str, ignoring_case: bool = False, empty_parameters: bool = True
    ) -> list[str]:
        """Return the endpoints that a request may belong to in routers of any kind, the one that `match` returns first.

        Args:
            method: As in `match`.
            path: As in `match`: one of the path's readings.
            ignoring_case: Whether letters match in either case.
            empty_parameters: Whether a parameter may take an empty segment.
        """
        exact = self._by_method.get(method, self._any)
        order = exact.find(path)
        every = self._every.get((exact.method, ignoring_case, empty_parameters))
        if every is None:
            templates = [(place, one) for place, one in enumerate(self._declared) if one.method in exact.methods]
            every = EveryTable(templates, ignoring_case, empty_parameters)
            self._every[exact.method, ignoring_case, empty_parameters] = every
        if order != NEVER and every.is_alone(order):
            return [self._declared[order].endpoint]
        found = every.find(path)
        if order != NEVER:
            found = [order, *[place for place in found if place != order]]
        return [self._declared[place].endpoint for place in found]


def _template_methods(method: str) -> tuple[str, ...]:
    """Return the methods of the templates that match requests of a method: those of messages match nothing else."""
    if method == A_MESSAGE:
        return (MESSAGE,)
    return ("HEAD", "GET", "*") if method == "HEAD" else (method, "*")


class _MethodTable:
    """The templates that match requests of one method: those without parameters in a dictionary, the others in a tree.

    Args:
        declared: All templates, in order of precedence.
        method: The method.
        methods: The methods of the templates to use.
    """

    __slots__ = ("_literals", "_names", "method", "methods", "tree")

    def __init__(self, declared: Sequence[RouteTemplate], method: str, methods: tuple[str, ...]) -> None:
        self.method = method
        self.methods = methods
        self._names = [template.endpoint for template in declared]
        self.tree = SegmentTree()
        literals: dict[str, int] = {}
        for order, template in enumerate(declared):
            if template.method not in methods:
                continue
            if len(template.tokens) == 1:
                literals.setdefault(str(template.tokens[0]), order)
            else:
                self.tree.add(order, template.tokens)
        self._literals = {path: min(order, self.tree.search(path)) for path, order in literals.items()}

    def match(self, path: str) -> str | None:
        """Return the endpoint of the first template that matches; None if none does."""
        found = self.find(path)
        return None if found == NEVER else self._names[found]

    def find(self, path: str) -> int:
        """Return the place of the first template that matches, `NEVER` if none does."""
        found = self._find(path)
        if path.endswith("\n"):
            # Starlette's expressions end with `$`, which also matches before a last newline. A client may send one, as %0A.
            found = min(found, self._find(path[:-1]))
        return found

    def _find(self, path: str) -> int:
        literal = self._literals.get(path)
        return self.tree.search(path) if literal is None else literal
