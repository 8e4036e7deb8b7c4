"""Print the report of a replay as tables that fit the terminal, and show a progress bar."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sluicegate.presentation.cli.replay.report.figures import ReplayReport, RuleRow
from sluicegate.presentation.cli.replay.report.summary import summary_lines
from sluicegate.presentation.cli.terminal import printable

_FILE_WIDTH = 140  # columns of a report that goes to a file or a pipe, which have no width of their own
_MIN_TEXT_WIDTH = 16  # columns of a text that is folded


def print_report(report: ReplayReport, width: int | None = None) -> None:
    """Print a report on standard output.

    Args:
        report: The report.
        width: The columns to fill; None: those of the terminal, or 140 where there is none.
    """
    console = Console(highlight=False, width=width)
    if width is None and not console.is_terminal:
        console.width = max(console.width, _FILE_WIDTH)
    console.print(Group(*_parts(report, console.width)))


@contextmanager
def progress_bar(total_bytes: int | None) -> Generator[Callable[[int], None] | None, None, None]:
    """Show a bar on standard error while the block runs, if that is a terminal.

    Args:
        total_bytes: The logs' size; None if it is unknown.

    Yields:
        A function that is called with the number of bytes read so far; None if there is no bar.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("replay", total=total_bytes)
        yield lambda read_bytes: progress.update(task, completed=read_bytes)


def _parts(report: ReplayReport, width: int) -> Iterator[RenderableType]:
    yield _rules("Rules, the most denied first; times in UTC", report.rules, report.rule_count, width)
    if report.clients:
        yield _clients(report, width)
    if report.comparison is not None:
        compared = report.comparison
        yield _rules(f"The same by {compared.rules}", compared.endpoints, len(compared.endpoints), width)
        yield _compared_clients(report, width)
    if report.no_rule_endpoints:
        yield _without_rule(report, width)
    for line in summary_lines(report):
        yield Text(printable(line.text), line.style, no_wrap=line.is_sample, overflow="ellipsis")


def _rules(title: str, rules: Sequence[RuleRow], count: int, width: int) -> Table:
    in_shadow = any(row.shadow_denied for row in rules)
    headings = ["allowed", "denied", "share", *(["in shadow"] if in_shadow else []), "clients", "honest"]
    rows: list[tuple[str, list[str]]] = []
    for row in rules:
        clients_denied = row.clients_denied or row.clients_shadow_denied
        numbers = [
            f"{row.allowed:,}",
            f"{row.denied:,}",
            _share(row.denied_share, row.requests),
            *([f"{row.shadow_denied:,}"] if in_shadow else []),
            f"{clients_denied:,} of {row.clients:,}",
            f"{row.honest_clients_denied or row.honest_clients_shadow_denied:,} of {row.honest_clients:,}",
        ]
        rows.append((printable(row.endpoint), numbers))
        for policy in row.policies:
            blame = f": {policy.denied:,}" if policy.denied else ""
            rows.append((f"  {policy.policy}{' (shadow)' if policy.shadow else ''}{blame}", [""] * len(headings)))
        if row.busiest is not None:
            rows.append((f"  most at {_time(row.busiest)[:16]}: {row.busiest_denied:,}", [""] * len(headings)))
    table = _table(title, "endpoint", headings, rows, width)
    _more(table, count - len(rules))
    return table


def _clients(report: ReplayReport, width: int) -> Table:
    rows: list[tuple[str, list[str]]] = []
    for row in report.clients:
        numbers = [row.kind, f"{row.allowed:,}", f"{row.denied:,}", _share(row.denied_share, row.requests)]
        first = _time(row.first_denied)[:16] if row.first_denied else "-"
        rows.append((printable(row.client), [*numbers, first]))
        rows.append((f"  {printable(row.worst_endpoint)}", [""] * 5))
    headings = ["looks like", "allowed", "denied", "share", "first denied"]
    table = _table("Clients, the most denied first, and where; times in UTC", "client", headings, rows, width)
    _more(table, report.client_count - len(report.clients))
    return table


def _compared_clients(report: ReplayReport, width: int) -> Table:
    compared = report.comparison
    assert compared is not None  # noqa: S101 - the caller has looked
    rows = [(printable(row.client), [f"{row.denied:,}", f"{row.denied_against:,}"]) for row in compared.clients]
    headings = ["denied", "by the other rules"]
    table = _table("Clients that they treat differently", "client", headings, rows, width)
    _more(table, compared.client_count - len(compared.clients))
    return table


def _without_rule(report: ReplayReport, width: int) -> Table:
    rows = [(printable(row.endpoint), [f"{row.requests:,}"]) for row in report.no_rule_endpoints]
    table = _table("No rule", "endpoint", ["requests"], rows, width)
    _more(table, report.no_rule_endpoint_count - len(report.no_rule_endpoints))
    return table


def _table(title: str, first: str, headings: Sequence[str], rows: Sequence[tuple[str, list[str]]], width: int) -> Table:
    """Return a table of texts and numbers. The numbers keep their width; a text is folded where a path or a name may be."""
    table = Table(
        title=Text(printable(title), overflow="ellipsis", no_wrap=True),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    numbers = [max([len(heading), *(len(row[place]) for _, row in rows)]) for place, heading in enumerate(headings)]
    room = max(_MIN_TEXT_WIDTH, width - sum(numbers) - 2 * (len(numbers) + 1))
    table.add_column(first, no_wrap=True, overflow="ellipsis")
    for heading, number_width in zip(headings, numbers, strict=True):
        table.add_column(Text(heading, justify="right"), justify="right", no_wrap=True, width=number_width)
    for text, cells in rows:
        folded = Text("\n".join(folded_lines(text, room)), no_wrap=True, overflow="ellipsis")
        table.add_row(
            folded,
            *(
                Text(cell, "red" if headings[n] == "denied" and cell not in {"", "0"} else "", no_wrap=True)
                for n, cell in enumerate(cells)
            ),
        )
    return table


def folded_lines(text: str, width: int) -> Iterator[str]:
    """Yield a text in lines of at most so many columns, broken after a slash, space, colon or dash.

    A piece that is longer than a line is cut and ends in an ellipsis: no word goes on in the next line.
    """
    indent = " " * (len(text) - len(text.lstrip(" ")))
    line = ""
    for piece in _pieces(text):
        if line.strip() and cell_len(line) + cell_len(piece.rstrip(" ")) > width:
            yield line.rstrip(" ")
            line = f"{indent}  "
        line += piece
        if cell_len(line.rstrip(" ")) > width:
            cut = Text(line, no_wrap=True)
            cut.truncate(width, overflow="ellipsis")
            line = cut.plain
    yield line.rstrip(" ")


def _pieces(text: str) -> Iterator[str]:
    start = 0
    for place, char in enumerate(text):
        if char in "/ :-" and text[start : place + 1].strip():
            yield text[start : place + 1]
            start = place + 1
    if start < len(text):
        yield text[start:]


def _more(table: Table, hidden: int) -> None:
    if hidden > 0:
        table.caption = f"and {hidden:,} more; --top 0 shows all"
        table.caption_justify = "left"


def _share(share: float, requests: int) -> str:
    return f"{share:.1%}" if requests else "-"


def _time(iso: str) -> str:
    return iso.replace("T", " ").removesuffix("Z")
