"""Fuzz the reading of rules files for some minutes, with recorded seeds.

    .venv/bin/python benchmarks/rule_file_fuzz.py [MINUTES] [FIRST_SEED]

Each round runs `tests/infrastructure/rules_file/test_reader_fuzz.py` with 10,000 examples a test and one seed; one that fails
is printed with its output, and reproduces with `--hypothesis-seed=SEED`.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(minutes: float, seed: int) -> int:
    """Run rounds until the time is up."""
    first = seed
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-x", f"--hypothesis-seed={seed}", "--timeout=0"),
            "tests/infrastructure/rules_file/test_reader_fuzz.py",
        ]
        run = subprocess.run(  # noqa: S603 - our own tests
            command, cwd=ROOT, env={**os.environ, "SLUICEGATE_LONG": "1"}, capture_output=True, text=True, check=False
        )
        if run.returncode:
            print(run.stdout)
            print(f"seed {seed} failed")
            return 1
        print(f"seed {seed}: {run.stdout.strip().splitlines()[-1]}", flush=True)
        seed += 1
    print(f"seeds {first} to {seed - 1} in {minutes:g} minutes: no crash")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10, int(sys.argv[2]) if len(sys.argv) > 2 else 1))  # noqa: PLR2004
