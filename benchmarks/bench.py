"""Measure sluicegate beside its peers: `make bench`.

    python bench.py [--quick | --scale] [--only SECTION …] [--keep]

Needs an environment that `make bench` builds, with the compiled wheel or the pure one (`make bench PURE=1`), and redis-server
for the parts that use Redis. With the compiled wheel the section `pure` measures the sources as they are, for comparison.
"""

import argparse
import asyncio
import importlib
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]  # for the tests' Redis servers

from report import RESULTS, Section, document, machine, show, show_goals  # noqa: E402
from sizes import FULL, QUICK, SCALE  # noqa: E402

SECTIONS = ("start", "memory", "pure", "keys", "redis", "budgets", "shared", "middleware")


def main() -> int:
    """Run the requested sections, and write the report if it was all of them."""
    parser = argparse.ArgumentParser(description="Measure sluicegate beside its peers.")
    parser.add_argument("--quick", action="store_true", help="less work in each round, for a first look")
    parser.add_argument("--scale", action="store_true", help="also ten million keys and several processes")
    parser.add_argument(
        "--only", nargs="+", choices=(*SECTIONS, "scale"), help="only these sections; RESULTS.md stays as it is"
    )
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else SCALE if arguments.scale else FULL
    names = arguments.only or (*SECTIONS, *(["scale"] if arguments.scale else []))
    facts = machine()
    print("\n".join(facts))
    started = time.monotonic()
    sections: list[Section] = []
    for name in names:
        section = asyncio.run(importlib.import_module(f"bench_{name}").run(size))
        show(section)
        sections.append(section)
    show_goals(sections)
    facts.append(f"The run took {time.monotonic() - started:.0f} s")
    print(facts[-1])
    if not arguments.only and not arguments.quick:
        from plots import draw  # noqa: PLC0415 - a first look needs no matplotlib

        for plot in (plot for section in sections for plot in section.plots):
            draw(plot)
        RESULTS.write_text(document(facts, sections, size.name), encoding="utf-8")
        print(f"written: {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
