"""Readers who check types strictly can paste what they see: all code on the pages passes mypy and pyright.

The code of other libraries on the pages about moving is not ours. `make check` checks `examples/apps`, and `make test-frameworks`
the page about frameworks that are not installed here.
"""

import re
from pathlib import Path

from support.pages import FRAMEWORKS_PAGE, MOVING_PAGES, PAGES, ROOT, python_blocks
from support.typed_code import type_complaints


def test_the_code_on_the_pages_is_typed(tmp_path: Path) -> None:
    """The blocks of a page are one module, and each block of a page about moving; the lines are those of the page."""
    for page in [*PAGES, *MOVING_PAGES]:
        if page == FRAMEWORKS_PAGE:
            continue
        name = re.sub(r"\W", "_", str(page.relative_to(ROOT)))
        text = ""
        for block in python_blocks(page.read_text()):
            if page in MOVING_PAGES:
                name, text = f"{name.partition('__')[0]}__{block.line}", ""
            if not block.is_old:
                text += "\n" * (block.line - text.count("\n")) + block.code
                (tmp_path / f"{name}.py").write_text(text)
    assert type_complaints(tmp_path) == ""


def test_what_is_not_typed_is_found(tmp_path: Path) -> None:
    """Each of the two finds what only it sees."""
    (tmp_path / "only_mypy.py").write_text("def of_any(items: list) -> None: ...\n")
    (tmp_path / "only_pyright.py").write_text("for item in range(2):\n    last = item\nprint(last)\n")
    complaints = type_complaints(tmp_path)
    assert "/only_mypy.py:1: error" in complaints
    assert "/only_pyright.py:3:7 - error" in complaints
