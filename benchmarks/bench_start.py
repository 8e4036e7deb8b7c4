"""What `import sluicegate` takes, with nothing else imported before."""

import statistics
import subprocess
import sys

from report import Section, Table, at_most
from sizes import Size

_STATEMENTS = (
    ("sluicegate", "import sluicegate"),
    ("asyncio, of the standard library", "import asyncio"),
    ("limits (async, in memory)", "import limits, limits.aio.storage, limits.aio.strategies"),
    ("throttled-py (async)", "import throttled.asyncio"),
    ("pyrate-limiter", "import pyrate_limiter"),
    ("slowapi", "import slowapi"),
    ("token-bucket", "import token_bucket"),
)
_PROGRAM = "import time; started = time.perf_counter(); {}; print((time.perf_counter() - started) * 1000)"


async def run(size: Size) -> Section:
    """Measure."""
    figures: dict[str, list[float]] = {name: [] for name, _ in _STATEMENTS}
    for _ in range(size.rounds):
        for name, statement in _STATEMENTS:
            figures[name].append(_milliseconds(statement))
    rows = [
        (name, f"{statistics.median(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
        for name, values in figures.items()
    ]
    conditions = f"A fresh interpreter each time, byte code at hand; {size.rounds} alternating rounds."
    table = Table("import", conditions, ("", "median ms", "fastest", "slowest"), rows)
    goal = at_most("import sluicegate", 100, statistics.median(figures["sluicegate"]), unit="ms")
    return Section("Start", [table], [goal])


def _milliseconds(statement: str) -> float:
    command = [sys.executable, "-c", _PROGRAM.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603 - our own program
