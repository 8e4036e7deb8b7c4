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

_BLOCK = re.compile(
    r"(?P<skip><!-- not run: .+? -->\n+)?```python\n(?P<code>.*?)```\n(?:\n(?:prints\n\n)?```text\n(?P<printed>.*?)```\n)?",
    re.DOTALL,
)


class Block(NamedTuple):
    """Python on a page.

    Args:
        line: How many lines of the page stand before the code.
        code: The code.
        printed: What the page says that it prints; None if it says nothing.
    """

    line: int
    code: str
    printed: str | None


def python_blocks(text: str) -> Iterator[Block]:
    """Return a page's Python blocks but for those after a comment `<!-- not run: reason -->`."""
    for block in _BLOCK.finditer(text):
        if not block["skip"]:
            yield Block(text[: block.start("code")].count("\n"), block["code"], block["printed"])
