"""Time `sluicegate replay` on generated lines, and watch its memory: replay, suggestion, and the same with fewer lines.

    PYTHONPATH=tests .venv/bin/python benchmarks/replay_speed.py [LINES]

Each run is a process of its own. The log has Combined lines of 20,000 clients over three days, out of order by a few seconds.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.access_logs import generated_lines

LINES = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
CLIENTS = 20_000
RULES = """
[endpoints]
"GET /" = "30/minute"
"POST /login" = ["5/minute", "100/minute per global"]
"GET /api/v1/items/{id}" = "60/minute burst 20"
"GET /blog/{slug}" = "20/minute"
"GET /users/{id:int}/orders" = "20/minute"
"""
RUN = """
import resource, sys
from sluicegate.presentation.cli.main import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def measure(name: str, arguments: list[str]) -> None:
    """Run the command, and print its time by the wall and on the processor, and its greatest resident memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [sys.executable, "-c", RUN, "replay", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this package
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name:<28} {wall:6.1f} s  {cpu:6.1f} s of processor  {int(run.stderr.split()[-1]) / 1024:6.0f} MiB")


def main() -> None:
    """Generate the logs, and measure."""
    print(f"{sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder, "rules.toml")
        rules.write_text(RULES)
        for count in (LINES // 4, LINES):
            log = Path(folder, f"{count}.log")
            with log.open("w") as file:
                for number, line in enumerate(generated_lines(count, clients=CLIENTS, seed=7)):
                    if number >= count:
                        break
                    file.write(line)
            print(f"{count:,} lines")
            measure("  replay", [str(log), "--rules", str(rules), "--json"])
            measure("  replay --html", [str(log), "--rules", str(rules), "--html", str(log.with_suffix(".html"))])
            measure("  suggest, and verify", [str(log), "--suggest"])


if __name__ == "__main__":
    main()
