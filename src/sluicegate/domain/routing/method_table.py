"""The templates that match requests of one method, in their order."""

from collections.abc import Sequence

from sluicegate.domain.routing.every_table import EveryTable
from sluicegate.domain.routing.segment_tree import SegmentTree
from sluicegate.domain.routing.template import RouteTemplate


class MethodTable:
    """Templates without parameters in a dictionary, the others in a tree.

    Args:
        declared: The templates with their places, in order of precedence.
        method: The method whose requests they match.
    """

    __slots__ = ("_every", "_literals", "declared", "method", "tree")

    def __init__(self, declared: Sequence[tuple[int, RouteTemplate]], method: str) -> None:
        self.declared = declared
        self.method = method
        self.tree = SegmentTree()
        self._every: dict[int, EveryTable] = {}
        literals: dict[str, int] = {}
        for order, template in declared:
            if len(template.tokens) == 1:
                literals.setdefault(str(template.tokens[0]), order)
            else:
                self.tree.add(order, template.tokens)
        self._literals = {path: min(order, self.tree.search(path)) for path, order in literals.items()}

    def every_table(self, ignoring_case: bool, empty_parameters: bool) -> EveryTable:
        """Return the same templates for routers of any kind: built when first asked, for few applications need them."""
        kind = 2 * ignoring_case + empty_parameters
        table = self._every.get(kind)
        if table is None:
            table = self._every[kind] = EveryTable(self.declared, ignoring_case, empty_parameters)
        return table

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
