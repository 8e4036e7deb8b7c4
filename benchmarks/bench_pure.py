"""The memory section once more, without compiled modules, beside the same peers: `src/` is all that it needs."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from report import KIND, Section
from sizes import BY_NAME, Size

_SOURCES = Path(__file__).resolve().parents[1] / "src"


async def run(size: Size) -> Section:
    """Measure in a process that imports the sources instead of the installed wheel."""
    if KIND == "pure":
        return Section("In memory, without compiled modules", left_out="this run has none at all.")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, size.name),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(_SOURCES)},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return msgspec.json.decode(output, type=Section)


if __name__ == "__main__":
    import bench_memory

    assert KIND == "pure"
    measured = asyncio.run(bench_memory.run(BY_NAME[sys.argv[1]]))
    measured.plots.clear()  # the compiled kind's plot has the same name
    print(msgspec.json.encode(measured).decode())
