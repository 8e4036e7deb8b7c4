"""Show the demo: a live table on a terminal, plain lines elsewhere, and a summary at the end."""

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sluicegate.presentation.cli.demo.clients import Client, Response
from sluicegate.presentation.cli.terminal import printable

_TRAIL = 24  # how many of the latest responses a row shows as dots


class ClientStats:
    """The responses of a client so far.

    Args:
        client: The client.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.allowed = 0
        self.denied = 0
        self.last: Response | None = None
        self.first_denial: Response | None = None
        self.failure: Response | None = None
        self.trail: deque[bool] = deque(maxlen=_TRAIL)

    def add(self, response: Response) -> None:
        """Count a response."""
        if not response.status:
            self.failure = response
            return
        self.last = response
        self.trail.append(not response.denied)
        if response.denied:
            self.denied += 1
            self.first_denial = self.first_denial or response
        else:
            self.allowed += 1


class Screen(Protocol):
    """Where the running demo is shown."""

    def show(self, stats: ClientStats, response: Response) -> None:
        """Show a response that has just arrived."""
        ...

    def tick(self) -> None:
        """Show the counts; called about once a second."""
        ...


@contextmanager
def open_screen(all_stats: Sequence[ClientStats], rates: dict[str, str], port: int) -> Generator[Screen, None, None]:
    """Open the screen that suits standard output, while the block runs.

    Args:
        all_stats: The clients, in order.
        rates: Endpoints and their rates, for the headline.
        port: The site's port.
    """
    console = Console(highlight=False)
    console.print(f"A site on http://127.0.0.1:{port} behind sluicegate, and {len(all_stats)} clients.")
    for endpoint, rate in rates.items():
        console.print(Text(f"  {endpoint:<21} {rate} per address"))
    console.print()
    if not console.is_terminal:
        yield _Lines(console, all_stats)
        return
    with Live(_table(all_stats), console=console, refresh_per_second=10, transient=True) as live:
        yield _LiveTable(live, all_stats)


def print_summary(all_stats: Sequence[ClientStats]) -> None:
    """Print how many requests of each client were allowed and denied, and one denial in full."""
    console = Console(highlight=False)
    table = _bare_table()
    for name in ("client", "address", "what it did"):
        table.add_column(name)
    for name in ("requests", "allowed", "denied"):
        table.add_column(name, justify="right")
    for stats in all_stats:
        table.add_row(
            stats.client.name,
            stats.client.address,
            stats.client.story,
            str(stats.allowed + stats.denied),
            Text(str(stats.allowed), "green"),
            Text(str(stats.denied), "red" if stats.denied else ""),
        )
    console.print(table)
    denials = [stats.first_denial for stats in all_stats if stats.first_denial]
    if not denials:
        return
    denial = max(denials, key=lambda response: float(response.retry_after or 0))
    console.print(f"The first denial of the {denial.client}, in full:\n")
    lines = [f"HTTP/1.1 {denial.status} {denial.reason}", *(f"{name}: {value}" for name, value in denial.headers)]
    lines += ["", *denial.body.splitlines()]
    for line in lines:
        console.print(Text(f"  {printable(line)}"), soft_wrap=True)


class _LiveTable:
    """A table that is updated in place."""

    def __init__(self, live: Live, all_stats: Sequence[ClientStats]) -> None:
        self._live = live
        self._all_stats = all_stats

    def show(self, stats: ClientStats, response: Response) -> None:  # noqa: ARG002 - the whole table is drawn again
        self._live.update(_table(self._all_stats))

    def tick(self) -> None:
        pass


class _Lines:
    """One line a second, and one for each client's first denial."""

    def __init__(self, console: Console, all_stats: Sequence[ClientStats]) -> None:
        self._console = console
        self._all_stats = all_stats

    def show(self, stats: ClientStats, response: Response) -> None:
        if response is stats.first_denial:
            self._console.print(
                f"{stats.client.name}: the first {response.status}, after {stats.allowed} allowed requests;"
                f" Retry-After {response.retry_after}",
                soft_wrap=True,
            )

    def tick(self) -> None:
        self._console.print(
            "allowed + denied: "
            + ", ".join(f"{one.client.name} {one.allowed} + {one.denied}" for one in self._all_stats),
            soft_wrap=True,
        )


def _table(all_stats: Sequence[ClientStats]) -> Table:
    table = _bare_table()
    table.add_column("client")
    table.add_column("address")
    table.add_column("allowed", justify="right", min_width=7)
    table.add_column("denied", justify="right", min_width=6)
    table.add_column("the latest answers", min_width=_TRAIL)
    table.add_column("now", min_width=16)
    for stats in all_stats:
        trail = Text()
        for allowed in stats.trail:
            trail.append("●" if allowed else "✗", "green" if allowed else "red")
        table.add_row(
            stats.client.name,
            stats.client.address,
            Text(str(stats.allowed), "green"),
            Text(str(stats.denied), "red" if stats.denied else ""),
            trail,
            _now(stats),
        )
    return table


def _now(stats: ClientStats) -> Text:
    if stats.failure:
        return Text("no answer", "yellow")
    if stats.last is None:
        return Text("-")
    if stats.last.denied:
        return Text(f"429, wait {stats.last.retry_after} s", "red")
    return Text(f"{stats.last.status}, allowed", "green")


def _bare_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
