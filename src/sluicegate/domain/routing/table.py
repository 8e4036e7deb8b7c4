"""Find the endpoint that a request belongs to: the first declared template that matches, as in Starlette's router."""

from collections.abc import Iterable, Sequence

from sluicegate.domain.routing.segment_tree import NEVER, SegmentTree
from sluicegate.domain.routing.template import RouteTemplate


class RouteTable:
    """Match requests to templates.

    The cost of a match does not depend on the number of templates.

    Args:
        templates: The templates in order of precedence, which is the order in which they were declared.
    """

    __slots__ = ("_any", "_by_method", "_declared")

    def __init__(self, templates: Iterable[RouteTemplate]) -> None:
        declared = tuple(templates)
        self._declared = declared
        methods = {template.method for template in declared}
        if "GET" in methods:
            methods.add("HEAD")
        self._by_method = {method: _MethodTable(declared, _template_methods(method)) for method in methods}
        self._any = _MethodTable(declared, ("*",))

    def __reduce__(self) -> tuple[type["RouteTable"], tuple[tuple[RouteTemplate, ...]]]:
        # Compiled classes cannot be copied or pickled attribute by attribute.
        return RouteTable, (self._declared,)

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint of the first declared template that matches; None if none does.

        Args:
            method: The request's method in capitals, or `WEBSOCKET`. Templates for `GET` match `HEAD` as well.
            path: The path, decoded, without the query: ASGI's `path` without its `root_path`.
        """
        return self._by_method.get(method, self._any).match(path)


def _template_methods(method: str) -> tuple[str, ...]:
    """Return the methods of the templates that match requests of a method."""
    return ("HEAD", "GET", "*") if method == "HEAD" else (method, "*")


class _MethodTable:
    """The templates that match requests of one method: those without parameters in a dictionary, the others in a tree.

    Args:
        declared: All templates, in order of precedence.
        methods: The methods of the templates to use.
    """

    __slots__ = ("_literals", "_names", "tree")

    def __init__(self, declared: Sequence[RouteTemplate], methods: tuple[str, ...]) -> None:
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
        found = self._find(path)
        if path.endswith("\n"):
            # Starlette's expressions end with `$`, which also matches before a last newline. A client may send one, as %0A.
            found = min(found, self._find(path[:-1]))
        return None if found == NEVER else self._names[found]

    def _find(self, path: str) -> int:
        literal = self._literals.get(path)
        return self.tree.search(path) if literal is None else literal
