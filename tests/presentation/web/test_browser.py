"""A real browser reads a denial of another origin."""

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import http_sf
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from sluicegate import MemoryStorage, RateLimitRule, TokenBucketAdapter
from sluicegate.asgi import RateLimitMiddleware
from support.browser import CHROMIUM, FLAGS, needs_chromium
from support.uvicorn_server import UvicornServer

PAGE = """<!doctype html><script>
(async () => {
  const answers = [];
  for (let i = 0; i < 2; i++) {
    const answer = await fetch("%s/items/" + i, {headers: {"X-Makes": "a preflight"}});
    answers.push({
      status: answer.status,
      retryAfter: answer.headers.get("Retry-After"),
      rateLimit: answer.headers.get("RateLimit"),
      policy: answer.headers.get("RateLimit-Policy"),
      body: await answer.text(),
    });
  }
  return answers;
})().then(JSON.stringify, String).then(text => fetch("/result", {method: "POST", body: text}));
</script>"""


@needs_chromium
async def test_a_cross_origin_fetch_reads_status_wait_and_quota(tmp_path: Path) -> None:
    """With CORSMiddleware outside and the fields exposed, a page of another origin can tell a 429 and what is left.

    Each request is preceded by a preflight, which takes nothing: the bucket holds one token.
    """
    methods: list[str] = []

    async def item(_: Request) -> Response:
        return PlainTextResponse("an item")

    limiter = TokenBucketAdapter(
        storage=MemoryStorage(), rules={"* /items/{id}": RateLimitRule(1, 1, "ip", name="items")}
    )
    api = Starlette(
        routes=[Route("/items/{id}", item)],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_headers=["X-Makes"],
                expose_headers=["Retry-After", "RateLimit", "RateLimit-Policy"],
            ),
            Middleware(RateLimitMiddleware, limiter=limiter),
        ],
    )

    async def recorded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            methods.append(scope["method"])
        await api(scope, receive, send)

    results: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    with UvicornServer(recorded) as other:

        async def page(_: Request) -> Response:
            return HTMLResponse(PAGE % other.url)

        async def result(request: Request) -> Response:
            loop.call_soon_threadsafe(results.put_nowait, (await request.body()).decode())
            return PlainTextResponse("")

        with UvicornServer(Starlette(routes=[Route("/", page), Route("/result", result, methods=["POST"])])) as own:
            assert CHROMIUM is not None
            browser = subprocess.Popen(  # noqa: ASYNC220 - started once, with our own arguments
                [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}", "--remote-debugging-port=0", own.url],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"HOME": str(tmp_path)},
            )
            try:
                async with asyncio.timeout(60):
                    answers = json.loads(await results.get())
            finally:
                browser.kill()
                browser.wait(20)
    assert [answer["status"] for answer in answers] == [200, 429]
    assert answers[0]["body"] == "an item"
    assert http_sf.parse(answers[0]["rateLimit"].encode(), tltype="list")[0][1]["r"] == 0
    assert 55 <= int(answers[1]["retryAfter"]) <= 60
    assert http_sf.parse(answers[1]["policy"].encode(), tltype="list") == [("items", {"q": 1, "w": 60})]
    assert json.loads(answers[1]["body"])["violated-policies"] == ["items"]
    assert "OPTIONS" in methods
