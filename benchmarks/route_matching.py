"""Time the route table: by the number of rules, and on paths of 8 kB. Run: `.venv/bin/python benchmarks/route_matching.py`."""

import platform
import time
from collections.abc import Callable

from starlette.routing import Match, Route

from sluicegate.domain.routing.table import RouteTable
from sluicegate.domain.routing.template import parse_endpoint

SIZE = 8_192


def microseconds(call: Callable[[], object], repeat: int) -> float:
    """Return the least mean of seven rounds."""
    rounds: list[float] = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(repeat):
            call()
        rounds.append((time.perf_counter() - started) / repeat)
    return min(rounds) * 1e6


def endpoints(count: int) -> list[str]:
    """Return rules of five kinds."""
    rules: list[str] = []
    for i in range(count // 5):
        rules += [
            f"GET /api/v1/r{i}",
            f"GET /api/v1/r{i}/{{id:int}}",
            f"GET /api/v1/r{i}/{{id}}/sub/{{key}}",
            f"GET /files/{{name}}.x{i}",
            f"GET /tree/{{rest:path}}/act{i}",
        ]
    return rules


def main() -> None:
    """Print both tables."""
    print(f"Python {platform.python_version()}, least mean of 7 rounds, microseconds")
    for count in (5, 500, 5_000):
        rules = endpoints(count)
        table = RouteTable(template for template in map(parse_endpoint, rules) if template)
        routes = [Route(rule.removeprefix("GET "), print) for rule in rules]
        last = count // 5 - 1
        for path in (
            f"/api/v1/r{last}",
            f"/api/v1/r{last}/12",
            f"/api/v1/r{last}/a/sub/b",
            f"/files/a.x{last}",
            f"/tree/a/b/act{last}",
            "/not/there",
        ):
            scope = {"type": "http", "method": "GET", "path": path, "root_path": ""}
            ours = microseconds(lambda table=table, path=path: table.match("GET", path), 1_000)
            theirs = microseconds(
                lambda routes=routes, scope=scope: next((r for r in routes if r.matches(scope)[0] is Match.FULL), None),
                3,
            )
            print(f"{count:5} rules  {path:24} {ours:8.2f}   Starlette's router {theirs:9.1f}")
    rules = endpoints(500)
    table = RouteTable(template for template in map(parse_endpoint, rules) if template)
    for path in (
        "/" * SIZE,
        "/a" * (SIZE // 2),
        "/api/v1/r1/" + "a" * SIZE,
        "/files/" + "." * SIZE,
        "/tree/" + "a/" * 4_090,
    ):
        taken = microseconds(lambda path=path: table.match("GET", path), 200)
        print(f"  500 rules  8 kB {path[:20]:20} {taken:8.2f}")
    for rule, path in (
        ("GET /{a}-{b}-{c}.z", "/" + "-" * SIZE),
        ("GET /{a:path}/v/{c}", "/v" * (SIZE // 2) + "/"),
        ("GET /{a:int}-{b}x{c:int}", "/1-" + "x1" * (SIZE // 2) + "y"),
        ("GET /{a:path}/x/{b:path}/y/{c}", "/x" * (SIZE // 2)),
    ):
        one = RouteTable(template for template in [parse_endpoint(rule)] if template)
        taken = microseconds(lambda one=one, path=path: one.match("GET", path), 30)
        print(f"    1 rule   8 kB {rule:32} {taken:8.2f}")


if __name__ == "__main__":
    main()
