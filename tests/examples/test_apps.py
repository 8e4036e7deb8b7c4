"""Each example, started as its first lines say, limits real HTTP requests."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from support.redis_servers import RedisServer, free_port, redis_7

EXAMPLES = Path(__file__).parents[2] / "examples" / "apps"


@contextmanager
def example(name: str, *arguments: str) -> Iterator[httpx.Client]:
    """Start an example and return a client for it. The port is the last of its arguments."""
    port = free_port()
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SLUICEGATE_")}
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environ,
    ) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
                deadline = time.monotonic() + 30
                while True:
                    try:
                        client.get("/not/there")
                        break
                    except httpx.ConnectError:
                        assert server.poll() is None, f"{name} ended"
                        assert time.monotonic() < deadline, f"{name} did not start"
                        time.sleep(0.05)
                yield client
        finally:
            server.kill()


def assert_denied(answer: httpx.Response) -> None:
    """Check what every denial has."""
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "RateLimit" in answer.headers
    assert answer.json()["violated-policies"]


def test_fastapi() -> None:
    """The middleware's rules, the dependency's cost, and the documentation."""
    with example("fastapi_app.py") as client:
        answers = [client.post("/sessions") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert_denied(answers[-1])
        assert [client.get(f"/accounts/{number}").status_code for number in range(4)] == [200, 200, 200, 429]
        assert [client.get("/reports", params={"pages": 60}).status_code for _ in range(2)] == [200, 429]
        assert_denied(client.get("/reports", params={"pages": 60}))
        assert "429" in client.get("/openapi.json").json()["paths"]["/reports"]["get"]["responses"]


def test_starlette() -> None:
    """Users are counted by name, those who are not signed in by address, and handshakes and messages too."""
    with example("starlette_app.py") as client:
        alice, bob = {"Authorization": "Bearer alice"}, {"Authorization": "Bearer bob"}
        answers = [client.get("/me", headers=alice) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert_denied(answers[-1])
        assert client.get("/me", headers=bob).status_code == 200
        forged = [client.get("/me", headers={"Authorization": f"Bearer {number}"}).status_code for number in range(4)]
        assert forged[-1] == 429
        feed = f"ws://{client.base_url.host}:{client.base_url.port}/feed/"
        for room, texts in (("a", "123"), ("b", "4")):
            with connect(feed + room) as websocket:
                assert websocket.recv() == "hello"
                for text in texts:
                    websocket.send(text)
                    if text == "4":
                        with pytest.raises(ConnectionClosed, match="1013"):
                            websocket.recv()
                    else:
                        assert websocket.recv() == text
        with pytest.raises(InvalidStatus) as caught, connect(feed + "c"):
            pass
        assert caught.value.response.status_code == 429
        assert "Retry-After" in caught.value.response.headers


@pytest.mark.parametrize(("name", "path"), [("flask_app.py", "/items/{}"), ("django_app.py", "/items/{}/")])
def test_flask_and_django(name: str, path: str) -> None:
    """All items share a bucket, and what is exempt is not counted."""
    with example(name) as client:
        answers = [client.get(path.format(number)) for number in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert_denied(answers[-1])
        assert "RateLimit" not in client.get("/health/" if "django" in name else "/health").headers


@pytest.mark.usefixtures("redis_7_server")  # it skips where there is no Redis
def test_redis() -> None:
    """Two processes share a bucket; without Redis each one counts sign-ins by itself, and articles pass."""
    with (
        RedisServer(binary=redis_7()) as server,
        example("redis_app.py", server.url) as one,
        example("redis_app.py", server.url) as other,
    ):
        quotas = [client.get("/articles/1").headers["RateLimit"] for client in (one, other, one)]
        assert [quota.split(";")[1] for quota in quotas] == ["r=59", "r=58", "r=57"]
        server.kill()
        for client in (one, other):
            answers = [client.post("/sessions") for _ in range(6)]
            assert [answer.status_code for answer in answers] == [200] * 5 + [429]
            assert_denied(answers[-1])
            assert {client.get(f"/articles/{number}").status_code for number in range(70)} == {200}
            assert sum(client.get("/failures").json().values()) == 76


def test_the_live_page_behind_a_password() -> None:
    """Operators see what the application's clients were told; nobody else sees anything."""
    with example("live_app.py") as client:
        assert [client.get("/quote").status_code for _ in range(4)] == [200, 200, 200, 429]
        assert client.get("/ops/limits/").status_code == 401
        assert client.get("/ops/limits/v1/live").status_code == 401
        operator = ("ops", "change-me")
        assert "What the limiter does now" in client.get("/ops/limits/", auth=operator).text
        figures = client.get("/ops/limits/v1/live", auth=operator).json()
        assert (figures["traffic"]["allowed"], figures["traffic"]["denied"]) == (3, 1)
        assert [one["identifier"] for one in figures["hot"]["denied"]["keys"]] == ["127.0.0.1"]
