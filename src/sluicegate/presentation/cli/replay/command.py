"""Run the command `sluicegate replay`."""

from pathlib import Path

from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.rules_file.reader import load_rules
from sluicegate.presentation.cli.limiter_commands import DONE, settings_with_rules
from sluicegate.presentation.cli.replay.engine import Replay
from sluicegate.presentation.cli.replay.log_lines import read_lines, size_of
from sluicegate.presentation.cli.replay.report import build_report
from sluicegate.presentation.cli.replay.table import print_report, progress_bar
from sluicegate.presentation.cli.terminal import write_json


def replay(access_log: str, rules_path: Path | None, *, top: int, reorder_lines: int, as_json: bool) -> int:
    """Replay a log and print the outcome of its requests.

    Args:
        access_log: The log's path; `-` is standard input.
        rules_path: The rules file; None: that of the environment.
        top: Rows of each table, at least 0; 0: all.
        reorder_lines: How many requests are held back to put the log in order of time.
        as_json: Whether to print JSON instead of tables.

    Returns:
        The exit status, 0.

    Raises:
        InvalidInputError: If an argument, a setting or the rules file is invalid, or the log cannot be read.
    """
    if top < 0:
        raise InvalidInputError(f"top={top}: expected 0 (all) or more")
    rules = load_rules(settings_with_rules(rules_path).rules_path)
    run = Replay(rules, reorder_lines=reorder_lines)
    with progress_bar(size_of(access_log)) as on_progress:
        run.run(read_lines(access_log, on_progress))
    report = build_report(run, top)
    if as_json:
        write_json(report)
    else:
        print_report(report)
    return DONE
