"""The pages, and the Python blocks on them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "moving"),
]
MOVING_PAGES = sorted((ROOT / "docs" / "how-to" / "moving").glob("*.md"))
"""Those that show the calls of other libraries; `tests/docs/test_moving_pages.py` runs what is on them."""

FRAMEWORKS_PAGE = ROOT / "docs" / "how-to" / "protect-litestar-quart-and-others.md"
"""Its frameworks are in an environment of their own; `tests/frameworks/page.py` runs what is on it."""

_BLOCK = re.compile(
    r"(?P<skip><!-- not run: .+? -->\n+)?(?P<old><!-- pair: .+? -->\n)?"
    r"```python\n(?P<code>.*?)```\n(?:\n(?:prints\n\n)?```text\n(?P<printed>.*?)```\n)?",
    re.DOTALL,
)


class Block(NamedTuple):
    """Python on a page.

    Args:
        line: How many lines of the page stand before the code.
        code: The code.
        printed: What the page says that it prints; None if it says nothing.
        runs: Whether it is run: False after a comment `<!-- not run: reason -->`.
        is_old: Whether it shows another library's call: after a comment `<!-- pair: … -->`.
    """

    line: int
    code: str
    printed: str | None
    runs: bool
    is_old: bool


def python_blocks(text: str) -> Iterator[Block]:
    """Return a page's Python blocks."""
    for block in _BLOCK.finditer(text):
        line = text[: block.start("code")].count("\n")
        yield Block(line, block["code"], block["printed"], not block["skip"], bool(block["old"]))
