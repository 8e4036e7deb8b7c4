"""Users import from the facade and from modules of one level, never from inside."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(path for path in (ROOT / "examples").rglob("*") if path.is_file()),
]
INSIDE = re.compile(r"sluicegate\.(application|container|domain|infrastructure|presentation|runtime)\b")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_or_example_imports_from_inside(path: Path) -> None:
    """A layer's name in what users copy would make its place a promise."""
    assert [line for line in path.read_text(errors="replace").splitlines() if INSIDE.search(line)] == []
