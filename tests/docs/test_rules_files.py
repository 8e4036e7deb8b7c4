"""Rules files in pages and examples are good ones."""

import re
from pathlib import Path

import pytest

from sluicegate.application.rules.rule_lint import lint
from sluicegate.infrastructure.rules_file.reader import parse_rules, read_rule_file
from sluicegate.runtime.system_clock import utc_now

ROOT = Path(__file__).parents[2]
BLOCKS = [
    (page.name, text)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for text in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
]


@pytest.mark.parametrize(("page", "text"), BLOCKS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(BLOCKS)])
def test_a_rules_file_on_a_page_can_be_read(page: str, text: str) -> None:
    """Each block of TOML is a rules file."""
    assert len(parse_rules(text, name=page)) > 0


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "rules").glob("*.toml")), ids=lambda path: path.name)
def test_an_example_has_no_findings(path: Path) -> None:
    """Examples are read without an error, and lint has nothing to say about them."""
    assert lint(read_rule_file(path).rules, utc_now()) == []
