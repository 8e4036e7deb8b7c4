"""Every Python block of the README and the pages runs, and prints what the page says that it prints.

The blocks of a page run in order, in one namespace. A ```text block that follows a Python block is what that block prints. A
block after a comment `<!-- not run: reason -->` is left out. `redis://localhost:6379` stands for the tests' own server.
"""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(
    r"(?P<skip><!-- not run: .+? -->\n+)?```python\n(?P<code>.*?)```\n(?:\n(?:prints\n\n)?```text\n(?P<printed>.*?)```\n)?",
    re.DOTALL,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_on_the_page_runs(page: Path, request: pytest.FixtureRequest) -> None:
    """What the page shows is true."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    text = page.read_text()
    if "redis://localhost:6379" in text:
        text = text.replace("redis://localhost:6379", request.getfixturevalue("redis_server").url)
    for block in BLOCK.finditer(text):
        if block["skip"]:
            continue
        line = text[: block.start("code")].count("\n")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + block["code"], str(page), "exec"), namespace)  # noqa: S102 - our own pages
        if block["printed"] is not None:
            assert printed.getvalue() == block["printed"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_the_page_lead_somewhere(page: Path) -> None:
    """Relative links name files that exist."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
