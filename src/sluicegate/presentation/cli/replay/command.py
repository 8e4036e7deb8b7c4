"""The command `replay`."""

from pathlib import Path

from sluicegate.domain.errors import InvalidInputError
from sluicegate.infrastructure.rules_file.reader import load_rules
from sluicegate.presentation.cli.limiter_commands import DONE, settings_with_rules
from sluicegate.presentation.cli.replay.engine import Replay
from sluicegate.presentation.cli.replay.log_lines import read_lines, size_of
from sluicegate.presentation.cli.replay.report import report_on
from sluicegate.presentation.cli.replay.table import print_report, progress_bar
from sluicegate.presentation.cli.terminal import write_json


def replay(access_log: str, rules_path: Path | None, *, top: int, reorder_lines: int, as_json: bool) -> int:
    """Replay a log and print what became of its requests.

    Raises:
        InvalidInputError: If an argument, a setting or the rules file is wrong, or the log cannot be read.
    """
    if top < 0:
        raise InvalidInputError(f"top={top}: expected 0 (all) or more")
    rules = load_rules(settings_with_rules(rules_path).rules_path)
    run = Replay(rules, reorder_lines=reorder_lines)
    with progress_bar(size_of(access_log)) as on_progress:
        run.run(read_lines(access_log, on_progress))
    report = report_on(run, top)
    if as_json:
        write_json(report)
    else:
        print_report(report)
    return DONE
