"""The tables of a terminal."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.infrastructure.rules_file.reader import load_rules
from sluicegate.presentation.cli.replay.clients import Clients
from sluicegate.presentation.cli.replay.comparison import Comparison
from sluicegate.presentation.cli.replay.engine import Replay, client_of
from sluicegate.presentation.cli.replay.report.builder import build_report
from sluicegate.presentation.cli.replay.report.table import folded_lines, print_report
from support.access_logs import RULES, generated_lines, log_files

LONG = "GET /accounts/{account_id}/projects/{project_id}/members/averyveryverylongsegmentofapathwithoutanyslash"


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_is_wider_than_the_terminal_and_no_word_goes_on_in_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    """Long paths fold after slashes, numbers and sentences keep their words whole."""
    files = log_files(tmp_path, [*generated_lines(3_000, clients=60, seed=5), f"nonsense {'x' * 300}\n"])
    rules: dict[str, RateLimitRule] = {"POST /login": RateLimitRule(3, 1, "ip", name="a-policy-with-a-long-name")}
    rules |= {"GET /users/{id}/orders": RateLimitRule.parse("1/hour"), LONG: RateLimitRule.parse("1/minute")}
    run = Replay(rules)
    comparison = Comparison(run, Replay(load_rules(RULES)))
    clients = Clients()
    for request in files.requests():
        clients.observe(client_of(request), request)
        comparison.check(request)
    report = build_report(
        replay=run,
        clients=clients,
        files=files,
        top=0,
        comparison=comparison,
        against_name="rules/of/another/kind.toml",
    )
    print_report(report, 500)
    whole = set(re.findall(r"[A-Za-z]+", capsys.readouterr().out))
    print_report(report, width)
    lines = capsys.readouterr().out.splitlines()
    cut = set(re.findall(r"([A-Za-z]+)…", "\n".join(lines)))
    assert set(re.findall(r"[A-Za-z]+", "\n".join(lines))) - cut <= whole
    assert max(map(cell_len, lines)) <= width
    assert any("account_id" in line for line in lines)


@given(st.text(st.sampled_from("ab/ :-{}"), max_size=60), st.integers(8, 30))
def test_folding_loses_nothing_where_pieces_fit(text: str, width: int) -> None:
    """Joined again, the lines are the text; none is wider than allowed."""
    lines = list(folded_lines(text, width))
    assert all(cell_len(line) <= width for line in lines)
    if not any("…" in line for line in lines):
        assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_piece_that_is_too_long_is_cut_with_an_ellipsis() -> None:
    """And what follows it has a line of its own."""
    assert list(folded_lines("GET /abcdefghijklmnopqrstuvwxyz/end", 16)) == ["GET /", "  abcdefghijklm…", "  end"]
