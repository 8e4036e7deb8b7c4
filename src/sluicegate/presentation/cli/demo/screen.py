"""What the demonstration shows: a live table on a terminal, plain lines elsewhere, and a summary at the end."""

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sluicegate.presentation.cli.demo.clients import Answered, Client
from sluicegate.presentation.cli.terminal import printable

_TRAIL = 24  # the latest answers that a row shows as dots


class Standing:
    """How a client fares.

    Args:
        client: Who.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.allowed = 0
        self.denied = 0
        self.last: Answered | None = None
        self.first_denial: Answered | None = None
        self.failure: Answered | None = None
        self.trail: deque[bool] = deque(maxlen=_TRAIL)

    def note(self, answer: Answered) -> None:
        """Count an answer."""
        if not answer.status:
            self.failure = answer
            return
        self.last = answer
        self.trail.append(not answer.denied)
        if answer.denied:
            self.denied += 1
            self.first_denial = self.first_denial or answer
        else:
            self.allowed += 1


class Screen(Protocol):
    """Where a running demonstration is shown."""

    def show(self, standing: Standing, answer: Answered) -> None:
        """Show what has just happened."""
        ...

    def tick(self) -> None:
        """Show how things stand; called about once a second."""
        ...


@contextmanager
def opened_screen(standings: Sequence[Standing], rates: dict[str, str], port: int) -> Generator[Screen, None, None]:
    """Open the screen that fits standard output, for as long as the block runs.

    Args:
        standings: The clients, in their order.
        rates: The rules that are in force, for the headline.
        port: Where the site listens.
    """
    console = Console(highlight=False)
    console.print(f"A site on http://127.0.0.1:{port} behind sluicegate, and {len(standings)} clients.")
    for endpoint, rate in rates.items():
        console.print(Text(f"  {endpoint:<21} {rate} per address"))
    console.print()
    if not console.is_terminal:
        yield _Lines(console, standings)
        return
    with Live(_table(standings), console=console, refresh_per_second=10, transient=True) as live:
        yield _Board(live, standings)


def show_summary(standings: Sequence[Standing]) -> None:
    """Print who was allowed what, and one denial in full."""
    console = Console(highlight=False)
    table = _bare_table()
    for name in ("client", "address", "what it did"):
        table.add_column(name)
    for name in ("requests", "allowed", "denied"):
        table.add_column(name, justify="right")
    for standing in standings:
        table.add_row(
            standing.client.name,
            standing.client.address,
            standing.client.story,
            str(standing.allowed + standing.denied),
            Text(str(standing.allowed), "green"),
            Text(str(standing.denied), "red" if standing.denied else ""),
        )
    console.print(table)
    denials = [standing.first_denial for standing in standings if standing.first_denial]
    if not denials:
        return
    denial = max(denials, key=lambda answer: float(answer.retry_after or 0))
    console.print(f"What the {denial.client} was told the first time, in full:\n")
    lines = [f"HTTP/1.1 {denial.status} {denial.reason}", *(f"{name}: {value}" for name, value in denial.headers)]
    lines += ["", *denial.body.splitlines()]
    for line in lines:
        console.print(Text(f"  {printable(line)}"), soft_wrap=True)


class _Board:
    """A table that changes in place."""

    def __init__(self, live: Live, standings: Sequence[Standing]) -> None:
        self._live = live
        self._standings = standings

    def show(self, standing: Standing, answer: Answered) -> None:  # noqa: ARG002 - the whole table is drawn anew
        self._live.update(_table(self._standings))

    def tick(self) -> None:
        pass


class _Lines:
    """One line a second, and one for each client's first denial."""

    def __init__(self, console: Console, standings: Sequence[Standing]) -> None:
        self._console = console
        self._standings = standings

    def show(self, standing: Standing, answer: Answered) -> None:
        if answer is standing.first_denial:
            self._console.print(
                f"{standing.client.name}: the first {answer.status}, after {standing.allowed} allowed requests;"
                f" Retry-After {answer.retry_after}",
                soft_wrap=True,
            )

    def tick(self) -> None:
        self._console.print(
            "allowed + denied: "
            + ", ".join(f"{one.client.name} {one.allowed} + {one.denied}" for one in self._standings),
            soft_wrap=True,
        )


def _table(standings: Sequence[Standing]) -> Table:
    table = _bare_table()
    table.add_column("client")
    table.add_column("address")
    table.add_column("allowed", justify="right", min_width=7)
    table.add_column("denied", justify="right", min_width=6)
    table.add_column("the latest answers", min_width=_TRAIL)
    table.add_column("now", min_width=16)
    for standing in standings:
        trail = Text()
        for allowed in standing.trail:
            trail.append("●" if allowed else "✗", "green" if allowed else "red")
        table.add_row(
            standing.client.name,
            standing.client.address,
            Text(str(standing.allowed), "green"),
            Text(str(standing.denied), "red" if standing.denied else ""),
            trail,
            _now(standing),
        )
    return table


def _now(standing: Standing) -> Text:
    if standing.failure:
        return Text("no answer", "yellow")
    if standing.last is None:
        return Text("-")
    if standing.last.denied:
        return Text(f"429, wait {standing.last.retry_after} s", "red")
    return Text(f"{standing.last.status}, allowed", "green")


def _bare_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
