"""The benchmarks are not run by the tests, but what they import from each other and from the project must be there."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = {path.stem: ast.parse(path.read_text()) for path in sorted(BENCHMARKS.glob("*.py"))}


def imported(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the names that a module imports from others, with these."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from [(node.module, alias.name) for alias in node.names]


def defined(module: ast.Module) -> set[str]:
    """Return the names that a module has when it was imported."""
    names = {name for _, name in imported(module)}
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        names |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return names


@pytest.mark.parametrize("name", MODULES)
def test_what_it_imports_is_there(name: str) -> None:
    """`make bench` once ended in the middle, because a name was gone that only a process of its own used."""
    for source, wanted in imported(MODULES[name]):
        if source in MODULES:
            assert wanted in defined(MODULES[source]), f"{source} has no {wanted}"
        elif source.partition(".")[0] in {"sluicegate", "support"}:
            module = importlib.import_module(source)
            if not hasattr(module, wanted):
                importlib.import_module(f"{source}.{wanted}")
