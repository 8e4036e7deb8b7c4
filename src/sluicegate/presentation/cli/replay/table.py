"""Print the report of a replay as tables, and show a progress bar."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sluicegate.presentation.cli.replay.report import ReplayReport
from sluicegate.presentation.cli.terminal import printable

_FILE_WIDTH = 140  # columns of a report that goes to a file or a pipe, which have no width of their own


def print_report(report: ReplayReport) -> None:
    """Print a report on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _FILE_WIDTH)
    console.print(Group(*_parts(report)))


@contextmanager
def progress_bar(total_bytes: int | None) -> Generator[Callable[[int], None] | None, None, None]:
    """Show a bar on standard error while the block runs, if that is a terminal.

    Args:
        total_bytes: The log's size; None if it is unknown.

    Yields:
        A function that is called with the number of bytes read so far; None if there is no bar.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("replaying"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("replay", total=total_bytes)
        yield lambda read_bytes: progress.update(task, completed=read_bytes)


def _parts(report: ReplayReport) -> Iterator[RenderableType]:
    yield _rules(report)
    if report.clients:
        yield _clients(report)
    if report.no_rule_endpoints:
        yield _without_rule(report)
    yield _summary(report)


def _rules(report: ReplayReport) -> Table:
    table = _table("Rules, the most denied first")
    table.add_column("endpoint", overflow="fold")
    table.add_column("policy", overflow="fold")
    in_shadow = any(row.shadow_denied for row in report.rules)
    _number_columns(table, "allowed", "denied", "share", *(["in shadow"] if in_shadow else []), "clients denied")
    for row in report.rules:
        table.add_row(
            Text(printable(row.endpoint)),
            Text("\n".join(row.policies) or "-"),
            _count(row.allowed),
            _denied(row.denied),
            _share(row.denied_share, row.requests),
            *([_count(row.shadow_denied)] if in_shadow else []),
            f"{row.clients_denied:,} of {row.clients:,}",
        )
    _more(table, report.rule_count - len(report.rules))
    return table


def _clients(report: ReplayReport) -> Table:
    table = _table("Clients, the most denied first")
    table.add_column("client", overflow="fold")
    _number_columns(table, "allowed", "denied", "share")
    table.add_column("first denied, UTC", no_wrap=True)
    table.add_column("mostly at", overflow="fold")
    for row in report.clients:
        table.add_row(
            Text(printable(row.client)),
            _count(row.allowed),
            _denied(row.denied),
            _share(row.denied_share, row.requests),
            _time(row.first_denied) if row.first_denied else "-",
            Text(printable(row.worst_endpoint)),
        )
    _more(table, report.client_count - len(report.clients))
    return table


def _without_rule(report: ReplayReport) -> Table:
    table = _table("No rule")
    table.add_column("endpoint", overflow="fold")
    _number_columns(table, "requests")
    for row in report.no_rule_endpoints:
        table.add_row(Text(printable(row.endpoint)), _count(row.requests))
    _more(table, report.no_rule_endpoint_count - len(report.no_rule_endpoints))
    return table


def _summary(report: ReplayReport) -> Text:
    text = Text()
    counted = report.allowed + report.denied
    text.append(f"{report.lines:,} lines", "bold")
    if report.first and report.last:
        text.append(f" from {_time(report.first)} to {_time(report.last)} UTC")
    text.append(f": {report.requests:,} requests, {counted:,} under a rule, {report.no_rule:,} without one.\n")
    text.append(f"{report.allowed:,} allowed", "green")
    text.append(", ")
    text.append(f"{report.denied:,} denied", "red" if report.denied else "")
    text.append(f" ({report.denied_share:.1%} of those under a rule).")
    if report.malformed.count:
        text.append(f"\n{report.malformed.count:,} malformed lines were skipped", "yellow")
        shown = len(report.malformed.first)
        text.append(":" if shown == report.malformed.count else f", the first {shown} of them:")
        for sample in report.malformed.first:
            text.append(f"\n  line {sample.line}: {printable(sample.reason)}: {printable(sample.text[:100])}")
    if report.late:
        text.append(f"\n{report.late:,} requests came too late to be put in order", "yellow")
        text.append(" and were checked at the time of the request before them; a larger --reorder avoids that.")
    for warning in report.warnings:
        text.append(f"\n{printable(warning)}", "yellow")
    if report.evicted_unfull:
        text.append(f"\n{report.evicted_unfull:,} buckets were evicted before they were full", "yellow")
        text.append(
            ": the memory storage cannot hold so many clients at once, so fewer requests were denied than should be."
        )
    return text


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def _number_columns(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="right")


def _more(table: Table, hidden: int) -> None:
    if hidden > 0:
        table.caption = f"and {hidden:,} more; --top 0 shows all"
        table.caption_justify = "left"


def _count(number: int) -> str:
    return f"{number:,}"


def _denied(number: int) -> Text:
    return Text(f"{number:,}", "red" if number else "")


def _share(share: float, requests: int) -> str:
    return f"{share:.1%}" if requests else "-"


def _time(iso: str) -> str:
    return iso.replace("T", " ").removesuffix("Z")
