"""How many workers the server that runs this process was told to start, as far as its command line and environment tell."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_SHORT: Final = {"gunicorn": "-w", "hypercorn": "-w", "celery": "-c", "uvicorn": "", "granian": "", "fastapi": ""}
"""The servers that start workers, and the short form of the option that says how many."""

_LONG: Final = ("--workers", "--concurrency")
_DIGITS: Final = 6


def worker_count(environ: Mapping[str, str] = os.environ, arguments: Sequence[str] | None = None) -> int:
    """Return the number of workers; 1 if nothing tells of more.

    Args:
        environ: The environment variables, of which servers read `WEB_CONCURRENCY` and gunicorn `GUNICORN_CMD_ARGS` too.
        arguments: The command line; None: that of the process. Workers of all these servers have that of their parent.
    """
    arguments = sys.argv if arguments is None else arguments
    program = Path(arguments[0]) if arguments else Path()
    server = program.parent.name if program.name == "__main__.py" else program.name  # of `python -m server`
    if server not in _SHORT:
        return 1
    values = [environ.get("WEB_CONCURRENCY", "")]
    if server == "gunicorn":
        values += _given(_words(environ.get("GUNICORN_CMD_ARGS", "")), _SHORT[server])
    values += _given(arguments[1:], _SHORT[server])
    last = values[-1]  # the command line has the last word
    return max(1, int(last)) if last.isascii() and last.isdigit() and len(last) < _DIGITS else 1


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _given(words: Sequence[str], short: str) -> list[str]:
    """Return the values of the option for workers, in any of its forms."""
    values: list[str] = []
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in _LONG and equals:
            values.append(value)
        elif (word in _LONG or (short and word == short)) and at + 1 < len(words):
            values.append(words[at + 1])
        elif short and word.startswith(short) and not word.startswith("--"):
            values.append(word[len(short) :].lstrip("="))
    return values
