"""Trace one check: which files of the package it enters, in order, and how many calls it makes there.

Run: `python tests/support/trace_check.py` prints both for a check in memory, on Redis and behind the middleware, for the first
and for the second one. `--write` puts the files into `docs/explanation/architecture.md`, where a test compares them.
"""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import sluicegate
from sluicegate import MemoryStorage, RateLimitMiddleware, RateLimitRule, RedisStorage, TokenBucketAdapter
from support.asgi_calls import get
from support.redis_servers import MissingServerError, RedisServer

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "architecture.md"
SOURCE = Path(sluicegate.__file__).parent

# In the page a comment names a trace, and the block after it lists the second check's files, one a line, with a note or without;
# then, marked with `+`, those that only the first check enters.
BLOCK = re.compile(r"(?<=<!-- trace: )(?P<name>[^\n]+?) -->\n```text\n(?P<lines>.*?)```", re.DOTALL)
LINE = re.compile(r"^(?P<mark>[+ ]) (?P<file>\S+\.py)(?: +(?P<note>.*))?$", re.MULTILINE)


class Trace(NamedTuple):
    """What one check did.

    Args:
        files: The files of the package that it entered, in the order of first entry.
        calls: How many functions of the package it called; a coroutine that is resumed counts once.
    """

    files: list[str]
    calls: int


def compiled() -> bool:
    """Return whether parts of the package are compiled, so that their calls cannot be seen."""
    parts = [module for name, module in sys.modules.items() if name.startswith("sluicegate.")]
    return any(not str(part.__file__).endswith(".py") for part in parts)


async def trace_memory() -> list[Trace]:
    """Trace the first and the second check in memory."""
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /": RateLimitRule.per_minute(10)})
    return await _twice(lambda: limiter.is_allowed(endpoint="GET /", identifier="192.0.2.1"))


async def trace_redis(url: str) -> list[Trace]:
    """Trace the first check on Redis, which connects, and the second.

    Args:
        url: A server that runs.
    """
    async with RedisStorage.from_url(url, deadline_ms=30_000) as storage:
        rules = {"GET /": RateLimitRule.per_minute(10)}
        limiter = TokenBucketAdapter(storage=storage, rules=rules, deadline_ms=30_000)
        return await _twice(lambda: limiter.is_allowed(endpoint="GET /", identifier="192.0.2.1"))


async def trace_middleware() -> list[Trace]:
    """Trace the first and the second request through the middleware, in memory."""

    async def application(_scope: object, _receive: object, send: Callable[..., Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={"GET /a/{id}": RateLimitRule.per_minute(10)})
    app = RateLimitMiddleware(application, limiter=limiter)
    return await _twice(lambda: get(app, "/a/1"))


async def _twice(check: Callable[[], Awaitable[object]]) -> list[Trace]:
    traces: list[Trace] = []
    for _ in range(2):
        with _profiled() as frames:
            await check()
        files = [str(Path(frame.f_code.co_filename).relative_to(SOURCE)) for frame in frames]
        traces.append(Trace(list(dict.fromkeys(files)), len(frames)))
    return traces


@contextmanager
def _profiled() -> Iterator[list[FrameType]]:
    """Collect the package's frames of this thread, each once; no modules' and comprehensions' bodies."""
    source = str(SOURCE)
    frames: dict[FrameType, None] = {}  # kept: the address of one that is gone could be another's

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(source) and code.co_name.strip("<>") == code.co_name:
            frames[frame] = None

    kept: list[FrameType] = []
    sys.setprofile(profile)
    try:
        yield kept
    finally:
        sys.setprofile(None)
        kept += frames


def marked_files(traces: list[Trace]) -> list[tuple[str, str]]:
    """Return the second check's files, in order, each with a blank; then those of the first check alone, with a `+`."""
    first, second = (trace.files for trace in traces)
    return [(" ", file) for file in second] + [("+", file) for file in first if file not in second]


def read_page(text: str) -> dict[str, list[tuple[str, str]]]:
    """Return the marked files that the page lists, by the trace's name."""
    return {
        block["name"]: [(line["mark"], line["file"]) for line in LINE.finditer(block["lines"])]
        for block in BLOCK.finditer(text)
    }


def write_page(text: str, traces: dict[str, list[Trace]]) -> str:
    """Return the page with these files in its lists. Notes stay with their files, and move with them to other lists."""
    notes = {line["file"]: line["note"] for line in LINE.finditer(text) if line["note"]}

    def lines_of(block: re.Match[str]) -> str:
        if block["name"] not in traces:
            return block[0]
        files = marked_files(traces[block["name"]])
        width = max(len(file) for _, file in files)
        lines = [f"{mark} {file:{width}}  {notes.get(file, '')}".rstrip() for mark, file in files]
        return "\n".join([f"{block['name']} -->\n```text", *lines, "```"])

    return BLOCK.sub(lines_of, text)


def main() -> None:
    """Print the traces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the marked files, as JSON")
    parser.add_argument("--write", action="store_true", help=f"put the files into {PAGE.name}")
    arguments = parser.parse_args()
    if compiled():
        sys.exit("The package is compiled, and its calls cannot be seen: install it again with SLUICEGATE_PURE=1.")
    traces = {"memory": asyncio.run(trace_memory()), "middleware": asyncio.run(trace_middleware())}
    try:
        with RedisServer() as server:
            traces["redis"] = asyncio.run(trace_redis(server.url))
    except MissingServerError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command
    if arguments.json:
        print(json.dumps({name: marked_files(both) for name, both in traces.items()}))  # noqa: T201 - a command
        return
    for name, both in traces.items():
        for which, trace in zip(("first", "second"), both, strict=True):
            print(f"{name}, {which} check: {len(trace.files)} files, {trace.calls} calls")  # noqa: T201 - a command
            print(*(f"  {file}" for file in trace.files), sep="\n")  # noqa: T201 - a command
    if arguments.write:
        PAGE.write_text(write_page(PAGE.read_text(), traces))


if __name__ == "__main__":
    main()
