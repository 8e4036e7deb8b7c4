"""The crawler reads a whole site that limits it, and is refused by none of its pages in the end."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from sluicegate import MemoryStorage, RateLimitMiddleware, RateLimitRule, TokenBucketAdapter
from support.uvicorn_server import UvicornServer

CRAWLER = Path(__file__).parents[2] / "examples" / "apps" / "crawler.py"


def test_it_reads_a_limited_site() -> None:
    """Each page once, though the site allows fewer a second than the crawler would ask for; foreign links are left alone."""
    served: list[str] = []

    async def page(request: Any) -> HTMLResponse:
        served.append(request.url.path)
        number = int(request.path_params.get("number", 0))
        links = [
            f"/pages/{number * 2 + 1}",
            f"/pages/{number * 2 + 2}#top",
            "http://foreign.example/",
            "mailto:a@b.example",
        ]
        return HTMLResponse("".join(f'<a href="{link}">x</a>' for link in links))

    app = Starlette(routes=[Route("/", page), Route("/pages/{number}", page)])
    rules = {path: RateLimitRule.per_second(3, burst=1) for path in ("GET /", "GET /pages/{number}")}
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules=rules)
    with UvicornServer(RateLimitMiddleware(app, limiter=limiter)) as server:
        run = subprocess.run(
            [sys.executable, CRAWLER, f"{server.url}/", "6"], capture_output=True, text=True, check=True, timeout=60
        )
    assert sorted(run.stdout.splitlines()) == ["200 /", *(f"200 /pages/{number}" for number in range(1, 6))], run.stderr
    assert sorted(served) == ["/", *(f"/pages/{number}" for number in range(1, 6))]
