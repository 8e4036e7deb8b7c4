"""Type-check code that readers may paste."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def type_complaints(folder: Path, tools: str = sys.executable) -> str:
    """Return what mypy and pyright, both strict, say of the files in a folder; empty if they find nothing wrong.

    Each is started once, for to start costs more than to check.

    Args:
        folder: The folder.
        tools: The interpreter that has both. What the files import is that of the one that runs.
    """
    files = sorted(folder.iterdir())
    settings = folder / "pyrightconfig.json"  # the project's own settings name an environment
    settings.write_text(json.dumps({"typeCheckingMode": "strict", "extraPaths": [str(ROOT / "src")]}))
    runs = [
        subprocess.Popen(
            [tools, "-m", *command],
            cwd=ROOT,
            env={**os.environ, "MYPYPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in (
            ("mypy", "--strict", "--python-executable", sys.executable, *files),
            ("pyright", "--pythonpath", sys.executable, "--project", settings),
        )
    ]
    told = [run.communicate()[0] for run in runs]
    return "".join(text.replace(str(folder), "") for text, run in zip(told, runs, strict=True) if run.returncode)
