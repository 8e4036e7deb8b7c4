"""What a run found: tables and goals, printed and written to `RESULTS.md`, or to `RESULTS-pure.md` if the pure wheel ran."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import sluicegate
from rounds import Contestant, ratio

HERE = Path(__file__).parent
KIND = "compiled" if sluicegate.COMPILED else "pure"
RESULTS = HERE / ("RESULTS.md" if sluicegate.COMPILED else "RESULTS-pure.md")
PLOTS = HERE / ("plots" if sluicegate.COMPILED else "plots-pure")

_COMPARED = (
    "limits",
    "coredis",
    "slowapi",
    "throttled-py",
    "pyrate-limiter",
    "token-bucket",
    "fastapi-limiter",
    "redis",
    "hiredis",
    "fastapi",
    "starlette",
    "msgspec",
)


@dataclass(slots=True)
class Goal:
    """A goal, and what was reached.

    Args:
        work: What was done.
        wanted: The goal in words.
        reached: The figure.
        holds: Whether it is good enough.
    """

    work: str
    wanted: str
    reached: str
    holds: bool


@dataclass(slots=True)
class Table:
    """Rows under a heading.

    Args:
        title: The heading.
        conditions: One sentence on what was done.
        head: The columns' names.
        rows: The cells.
    """

    title: str
    conditions: str
    head: Sequence[str]
    rows: list[Sequence[str]]

    def lines(self) -> list[str]:
        """Return the table in Markdown, aligned so that a terminal shows it well too."""
        widths = [max(len(row[column]) for row in (self.head, *self.rows)) for column in range(len(self.head))]

        def line(cells: Sequence[str]) -> str:
            first, *others = zip(cells, widths, strict=True)
            return " ".join(["|", first[0].ljust(first[1]), *(f"| {cell.rjust(width)}" for cell, width in others), "|"])

        rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
        return [line(self.head), rule, *map(line, self.rows)]


@dataclass(slots=True)
class Plot:
    """Lines over logarithmic axes.

    Args:
        file: The file's name without its ending.
        title: The heading.
        x_name: What the horizontal axis counts.
        y_name: What the vertical axis counts.
        series: The points of each line, by its name.
    """

    file: str
    title: str
    x_name: str
    y_name: str
    series: dict[str, list[tuple[float, float]]]

    @property
    def path(self) -> Path:
        """The file that it is drawn into."""
        return PLOTS / f"{self.file}.svg"


@dataclass(slots=True)
class Section:
    """One part of a run.

    Args:
        name: The heading.
        tables: Its tables.
        goals: What it says of the goals.
        plots: Its plots.
        left_out: Why there is nothing.
    """

    name: str
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    left_out: str = ""


def compare(
    title: str,
    conditions: str,
    contestants: Sequence[Contestant],
    extra: Sequence[tuple[str, Callable[[Contestant], str]]] = (),
) -> Table:
    """Return the table of contestants of the same rounds; the ratios refer to the first one, which is ours."""
    ours = contestants[0]
    head = ("", "median us", "fastest", "slowest", "checks/s", "times ours", *(name for name, _ in extra))
    rows = [
        (
            contestant.name,
            f"{contestant.median:.2f}",
            f"{contestant.spread[0]:.2f}",
            f"{contestant.spread[1]:.2f}",
            f"{1e6 / contestant.median:,.0f}",
            f"{ratio(contestant, ours):.2f}",
            *(show(contestant) for _, show in extra),
        )
        for contestant in contestants
    ]
    return Table(title, conditions, head, rows)


def best_peer(contestants: Iterable[Contestant]) -> Contestant:
    """Return the fastest of other projects' limiters."""
    return min((one for one in contestants if one.peer and not one.ours), key=lambda one: one.median)


def at_least(work: str, times: float, reached: float, *, than: str) -> Goal:
    """Return a goal to be a number of times as fast as something."""
    return Goal(work, f"at least {times:g} times as fast as {than}", f"{reached:.2f}", reached >= times)


def at_most(work: str, most: float, reached: float, *, unit: str) -> Goal:
    """Return a goal to stay within a bound."""
    return Goal(work, f"at most {most:g} {unit}", f"{reached:.2f}", reached <= most)


def machine() -> list[str]:
    """Return what the figures depend on, a fact a line."""
    models = [line.split(":", 1)[1].strip() for line in _read("/proc/cpuinfo").splitlines() if "model name" in line]
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    commit = _run("git", "-C", str(HERE), "rev-parse", "--short", "HEAD") or "unknown"
    return [
        f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; sluicegate {version('sluicegate')} ({KIND}) at commit {commit}",
        (
            f"Machine: {os.cpu_count()} CPUs ({models[0] if models else platform.machine()}), {platform.system()}"
            f" {platform.release()}; load before the run: {load}"
        ),
        f"Python {platform.python_version()}, {_run('redis-server', '--version') or 'no redis-server'}",
        "Compared: " + ", ".join(f"{name} {version(name)}" for name in _COMPARED),
    ]


def document(facts: Sequence[str], sections: Sequence[Section], mode: str) -> str:
    """Return the whole report in Markdown."""
    lines = [
        "# Results",
        "",
        f"Written by `make bench` ({KIND}, {mode}); not edited by hand. All contestants of a table did the same work in one run,",
        "in alternating rounds, in a rotating order. `times ours` is the median of the rounds' ratios: 3.00 means that it takes",
        "three times as long as ours does. The machine may have been busy with other work: compare ratios of one table, not",
        "figures of two runs. A goal that begins with `try` is beyond what is required.",
        "",
        *(f"- {fact}" for fact in facts),
        "",
        "## Goals",
        "",
        *_goals(sections).lines(),
    ]
    for section in sections:
        lines += ["", f"## {section.name}", ""]
        if section.left_out:
            lines += [f"Left out: {section.left_out}"]
        for table in section.tables:
            lines += [f"### {table.title}", "", table.conditions, "", *table.lines(), ""]
        lines += [f"![{plot.title}]({plot.path.relative_to(HERE).as_posix()})" for plot in section.plots]
    return "\n".join(lines).rstrip() + "\n"


def show(section: Section) -> None:
    """Print a section."""
    print(f"\n== {section.name}")
    if section.left_out:
        print(f"left out: {section.left_out}")
    for table in section.tables:
        print(f"\n{table.title}\n{table.conditions}\n" + "\n".join(table.lines()))
    sys.stdout.flush()


def show_goals(sections: Sequence[Section]) -> None:
    """Print the goals, and what was reached."""
    print("\n== Goals\n" + "\n".join(_goals(sections).lines()))


def _goals(sections: Sequence[Section]) -> Table:
    rows = [
        (goal.work, goal.wanted, goal.reached, "yes" if goal.holds else "no")
        for section in sections
        for goal in section.goals
    ]
    return Table("Goals", "", ("work", "goal", "reached", "holds"), rows)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
