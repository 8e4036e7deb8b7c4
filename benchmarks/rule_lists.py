"""Time a check with and without long lists, and the reading of a long file. Prints ratios of one run.

.venv/bin/python benchmarks/rule_lists.py
"""

import asyncio
import platform
import time
from collections.abc import Callable

from sluicegate import MemoryStorage, RuleBook, TokenBucketAdapter
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.testing import RecordingLogger

NETWORKS = 100_000
CHECKS = 20_000
ROUNDS = 9
RULES = """
[endpoints]
"GET /a" = "search"
"GET /two" = ["search", "9000000/second per global"]
[policies.search]
rate = "1000000/second"
"""


def listed(count: int, *, yaml: bool = False) -> str:
    """Return rules with a deny list of /24 networks."""
    networks = [f"{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}.0/24" for n in range(count)]
    if yaml:
        return "endpoints:\n  GET /a: 1000000/second\ndeny:\n  ip:\n" + "".join(f"    - {one}\n" for one in networks)
    return RULES + "[deny]\nip = [\n" + "".join(f'    "{one}",\n' for one in networks) + "]\n"


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


async def best_us(limiters: list[TokenBucketAdapter], endpoint: str, clients: list[str]) -> list[float]:
    """Return the best mean time of a check for each limiter, their rounds interleaved."""
    best = [float("inf")] * len(limiters)
    for _ in range(ROUNDS):
        for n, limiter in enumerate(limiters):
            start = time.perf_counter()
            for client in clients:
                await limiter.is_allowed(endpoint=endpoint, identifier=client)
            best[n] = min(best[n], (time.perf_counter() - start) / len(clients) * 1e6)
    return best


async def main() -> None:
    """Measure and print."""
    print(f"Python {platform.python_version()}, {NETWORKS} networks on the deny list, memory storage, best of {ROUNDS}")
    for name, yaml in (("TOML", False), ("YAML", True)):
        text = listed(NETWORKS, yaml=yaml)
        seconds = timed(lambda text=text, yaml=yaml: parse_rules(text, yaml=yaml))  # type: ignore[misc]
        print(f"reading {len(text) / 1e6:.1f} MB of {name}: {seconds:.2f} s")
    override = RULES + 'overrides = [{ id = "192.0.2.0/24", rate = "9000000/second" }]\n'
    texts = {
        "no lists": RULES,
        "ten networks": listed(10),
        "100,000 networks": listed(NETWORKS),
        "an override": override,
    }
    books: dict[str, RuleBook] = {name: parse_rules(text) for name, text in texts.items()}
    limiters = [
        TokenBucketAdapter(storage=MemoryStorage(), rules=book, logger=RecordingLogger()) for book in books.values()
    ]
    strangers = [f"198.18.{n >> 8 & 255}.{n & 255}" for n in range(CHECKS)]
    for title, endpoint, clients in (
        ("one client again and again", "GET /a", ["198.51.100.7"] * CHECKS),
        ("two rules, one client", "GET /two", ["198.51.100.7"] * CHECKS),
        (f"{CHECKS} clients in turn", "GET /a", strangers),
    ):
        times = await best_us(limiters, endpoint, clients)
        print(
            f"{title}: "
            + ", ".join(f"{name} {t:.2f} us ({t / times[0]:.2f}x)" for name, t in zip(books, times, strict=True))
        )
    limiter = limiters[2]
    start = time.perf_counter()
    for n in range(CHECKS):
        await limiter.is_allowed(endpoint="GET /a", identifier=f"198.19.{n >> 8 & 255}.{n & 255}")
    print(
        f"first check of each of {CHECKS} clients, 100,000 networks: {(time.perf_counter() - start) / CHECKS * 1e6:.2f} us"
    )
    denied = await best_us([limiter], "GET /a", [f"0.{n >> 8 & 255}.{n & 255}.9" for n in range(CHECKS)])
    print(f"denied by the list: {denied[0]:.2f} us")


asyncio.run(main())
