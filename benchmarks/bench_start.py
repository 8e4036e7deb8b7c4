"""What `import sluicegate` takes, with nothing else imported before."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

from report import KIND, Section, Table, at_most
from sizes import Size

_SOURCES = Path(__file__).resolve().parents[1] / "src"
_GOAL_MS = 80
_ASYNCIO_MS = 45
"""What `import asyncio` took where the goal was set. A faster or slower machine moves the goal in proportion."""

_STATEMENTS = (
    (f"sluicegate, {KIND}", "import sluicegate"),
    ("asyncio, of the standard library", "import asyncio"),
    ("limits (async, in memory)", "import limits, limits.aio.storage, limits.aio.strategies"),
    ("throttled-py (async)", "import throttled.asyncio"),
    ("pyrate-limiter", "import pyrate_limiter"),
    ("slowapi", "import slowapi"),
    ("token-bucket", "import token_bucket"),
)
_FROM_SOURCE = "sluicegate, from its sources, without compiled modules"
_PROGRAM = "import time; started = time.perf_counter(); {}; print((time.perf_counter() - started) * 1000)"


async def run(size: Size) -> Section:
    """Measure."""
    figures: dict[str, list[float]] = {name: [] for name, _ in _STATEMENTS}
    figures[_FROM_SOURCE] = []
    for _ in range(size.rounds):
        for name, statement in _STATEMENTS:
            figures[name].append(_milliseconds(statement))
        figures[_FROM_SOURCE].append(_milliseconds("import sluicegate", PYTHONPATH=str(_SOURCES)))
    rows = [
        (name, f"{statistics.median(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
        for name, values in figures.items()
    ]
    conditions = f"A fresh interpreter each time, byte code cached; {size.rounds} alternating rounds."
    table = Table("import", conditions, ("", "median ms", "fastest", "slowest"), rows)
    ours, asyncio_alone = figures[_STATEMENTS[0][0]], figures["asyncio, of the standard library"]
    times = statistics.median(mine / theirs for mine, theirs in zip(ours, asyncio_alone, strict=True))
    unit = f"ms, where asyncio alone takes {_ASYNCIO_MS}"
    goal = at_most("import sluicegate", _GOAL_MS, times * _ASYNCIO_MS, unit=unit)
    return Section("Start", [table], [goal])


def _milliseconds(statement: str, **environment: str) -> float:
    command = [sys.executable, "-c", _PROGRAM.format(statement)]
    found = subprocess.run(  # noqa: S603 - our own program
        command, capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return float(found.stdout)
