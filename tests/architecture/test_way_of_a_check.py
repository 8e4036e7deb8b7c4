"""The page on the architecture lists the files that a check enters.

If a test fails because a check goes another way now: `python tests/support/trace_check.py --write`, and read the page again.
"""

import json
import os
import subprocess
import sys

import pytest

from support import trace_check
from support.trace_check import PAGE, SOURCE, Trace, compiled, read_page, write_page


@pytest.fixture(scope="module")
def traced() -> dict[str, list[list[str]]]:
    """Trace checks in a process of their own, where no other test has filled a cache."""
    if compiled():
        pytest.skip("the package is compiled, and the calls of compiled code cannot be seen")
    environ = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    command = [sys.executable, trace_check.__file__, "--json"]
    run = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    traces: dict[str, list[list[str]]] = json.loads(run.stdout)
    return traces


@pytest.mark.parametrize("name", ["memory", "redis", "middleware"])
def test_a_check_enters_the_files_that_the_page_lists(name: str, traced: dict[str, list[list[str]]]) -> None:
    """The second check enters them in this order; the first check enters those that are marked as well."""
    if name not in traced:
        pytest.skip("no redis-server in PATH")
    assert list(map(list, read_page(PAGE.read_text())[name])) == traced[name]


def test_every_file_that_the_page_names_is_there() -> None:
    """Also those in the hops above the lists."""
    words = {word.strip("`,.;:()") for word in PAGE.read_text().split()}
    named = {word for word in words if word.endswith((".py", ".lua")) and not word.startswith("tests/")}
    assert len(named) > 10
    assert [name for name in sorted(named) if not list(SOURCE.rglob(name))] == []


def test_writing_the_page_keeps_notes() -> None:
    """A note stays with its file, whatever place it comes to."""
    page = "<!-- trace: memory -->\n```text\n  a.py  first\n  b.py  second\n```\nrest\n"
    written = write_page(page, {"memory": [Trace(["b.py", "c.py", "long/d.py"], 9), Trace(["b.py", "long/d.py"], 5)]})
    assert written == "<!-- trace: memory -->\n```text\n  b.py       second\n  long/d.py\n+ c.py\n```\nrest\n"
