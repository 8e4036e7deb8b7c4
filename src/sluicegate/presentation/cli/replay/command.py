"""Run the command `sluicegate replay`."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.compiled_rules import Rules
from sluicegate.infrastructure.rules_file.reader import load_rules
from sluicegate.presentation.cli.limiter_commands import DONE, settings_with_rules
from sluicegate.presentation.cli.replay.clients import Clients
from sluicegate.presentation.cli.replay.comparison import Comparison
from sluicegate.presentation.cli.replay.engine import Replay, client_of
from sluicegate.presentation.cli.replay.formats.catalogue import format_named
from sluicegate.presentation.cli.replay.options import ReplayOptions
from sluicegate.presentation.cli.replay.report.builder import build_report, rule_rows
from sluicegate.presentation.cli.replay.report.figures import ReplayReport
from sluicegate.presentation.cli.replay.report.page import write_page
from sluicegate.presentation.cli.replay.report.table import print_report, progress_bar
from sluicegate.presentation.cli.replay.source.log_files import LogFiles
from sluicegate.presentation.cli.replay.source.log_lines import STANDARD_INPUT, display_name, size_of
from sluicegate.presentation.cli.replay.suggest.collector import SuggestionCollector, SuggestionOptions
from sluicegate.presentation.cli.replay.suggest.rules_text import rules_text, suggested_rules
from sluicegate.presentation.cli.replay.suggest.suggestion import Suggestion, Verification
from sluicegate.presentation.cli.terminal import write_error, write_json, write_line


def replay(options: ReplayOptions) -> int:
    """Replay logs, or suggest limits from them, and print the outcome.

    Returns:
        The exit status, 0.

    Raises:
        InvalidInputError: If an argument, a setting or a rules file is invalid, or a log cannot be read.
    """
    if options.top < 0:
        raise InvalidInputError(f"top={options.top}: expected 0 (all) or more")
    if options.suggest:
        return _suggest(options)
    rules = load_rules(settings_with_rules(options.rules).rules_path)
    report = _replay(options, rules)
    if options.html is not None:
        write_page(report, options.html)
    if options.as_json:
        write_json(report)
    else:
        print_report(report)
    return DONE


def _suggest(options: ReplayOptions) -> int:
    """Print a rules file, or JSON, with the limits that the logs suggest."""
    can_reread = not any(_is_stream(path) for path in options.logs)
    if options.html is not None and not can_reread:
        raise InvalidInputError(f"html={str(options.html)!r}: shows a replay, which needs files that can be read twice")
    if options.against is not None:
        load_rules(options.against)  # now, not when the logs have been read
    given = [*options.endpoints, *(load_rules(options.rules) if options.rules is not None else ())]
    scope = next(iter(options.reader_options().identify), "ip")
    asked = SuggestionOptions(
        share=options.share_fraction(),
        window_s=options.window_s,
        endpoints=given,
        max_endpoints=options.top,
        scope=scope,
    )
    collector = SuggestionCollector(asked)
    with progress_bar(_total_size(options)) as on_progress:
        collector.run(_log_files(options, on_progress).requests())
    suggestion = collector.suggestion()
    rules = suggested_rules(suggestion, shadow=False)
    report: ReplayReport | None = None
    if not rules:
        write_error("no honest-looking client in the log: no limit is suggested, and nothing to replay")
    elif can_reread:
        report = _replay(options, rules, suggestion)
        suggestion = report.suggestion or suggestion
    else:
        write_error("standard input cannot be read twice: the limits were not verified by replaying them")
    if options.html is not None and report is not None:
        write_page(report, options.html)
    if options.as_json:
        write_json(suggestion if report is None else report)
    else:
        write_line(rules_text(suggestion, ", ".join(map(display_name, options.logs))).rstrip("\n"))
    return DONE


def _replay(options: ReplayOptions, rules: Rules, suggestion: Suggestion | None = None) -> ReplayReport:
    """Replay the logs with some rules, and verify a suggestion with them."""
    scopes = tuple(options.reader_options().identify)
    run = Replay(rules, scopes=scopes, measure_needs=options.html is not None)
    comparison = None
    check = run.check
    if options.against is not None:
        comparison = Comparison(run, Replay(load_rules(options.against), scopes=scopes))
        check = comparison.check
    clients = Clients()
    with progress_bar(_total_size(options)) as on_progress:
        files = _log_files(options, on_progress)
        for request in files.requests():
            clients.observe(client_of(request), request)
            check(request)
    if suggestion is not None:
        suggestion = _verified(suggestion, run, clients)
    return build_report(
        replay=run,
        clients=clients,
        files=files,
        top=options.top,
        comparison=comparison,
        against_name="" if options.against is None else str(options.against),
        suggestion=suggestion,
    )


def _verified(suggestion: Suggestion, run: Replay, clients: Clients) -> Suggestion:
    """Return the suggestion with what its limits denied when they were replayed."""
    rows = {row.endpoint: row for row in rule_rows(run, clients)}
    endpoints = [
        msgspec.structs.replace(
            one,
            verified=None
            if one.limit is None
            else Verification(
                rows[one.endpoint].requests,
                rows[one.endpoint].denied,
                rows[one.endpoint].honest_clients,
                rows[one.endpoint].honest_clients_denied,
                rows[one.endpoint].clients_denied - rows[one.endpoint].honest_clients_denied,
            ),
        )
        for one in suggestion.endpoints
    ]
    return msgspec.structs.replace(suggestion, endpoints=endpoints)


def _is_stream(path: str) -> bool:
    return path == STANDARD_INPUT or Path(path).is_fifo() or Path(path).is_char_device()


def _log_files(options: ReplayOptions, on_progress: Callable[[int], object] | None) -> LogFiles:
    return LogFiles(
        options.logs,
        options.reader_options(),
        log_format=None if options.log_format is None else format_named(options.log_format),
        reorder_lines=options.reorder_lines,
        on_progress=on_progress,
    )


def _total_size(options: ReplayOptions) -> int | None:
    sizes = [size_of(path) for path in options.logs]
    return None if None in sizes else sum(size for size in sizes if size is not None)
