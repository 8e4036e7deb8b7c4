"""Type-check code that readers may paste."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def type_complaints(folder: Path) -> str:
    """Return what mypy says of the files in a folder, checked strictly; empty if it finds nothing wrong."""
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *sorted(folder.iterdir())],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if run.returncode == 0 else run.stdout.replace(str(folder), "") + run.stderr
