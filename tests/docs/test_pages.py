"""Every Python block of the README and the pages runs, and prints what the page says that it prints.

The blocks of a page run in order, in one namespace. A ```text block that follows a Python block is what that block prints. A
block after a comment `<!-- not run: reason -->` is left out. `redis://localhost:6379` stands for the tests' own server.
"""

import contextlib
import io
import re
from pathlib import Path

import pytest

from support.pages import MOVING_PAGES, PAGES, ROOT, python_blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_on_the_page_runs(page: Path, request: pytest.FixtureRequest) -> None:
    """What the page shows is true."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    text = page.read_text()
    if "redis://localhost:6379" in text:
        text = text.replace("redis://localhost:6379", request.getfixturevalue("redis_server").url)
    for block in python_blocks(text):
        if not block.runs:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)  # noqa: S102 - our own pages
        if block.printed is not None:
            assert printed.getvalue() == block.printed


@pytest.mark.parametrize("page", [*PAGES, *MOVING_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_the_page_lead_somewhere(page: Path) -> None:
    """Relative links name files that exist."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_index_links_every_page() -> None:
    """No page can be found by nobody."""
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(([^)#]+)\)", (docs / "index.md").read_text()))
    assert linked == {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")} - {"index.md"}
