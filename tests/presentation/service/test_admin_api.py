"""The admin API, and the command line that drives it: nothing without the token, and an event for each write."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from sluicegate import RateLimitAdministered
from sluicegate.presentation.cli.main import main
from sluicegate.presentation.service.settings import Address
from sluicegate.testing import FailingStorage
from support.rate_limit_service import ANYWHERE, ServiceWorld

TOKEN = "correct-horse-battery"
RULES = """
[policies]
login = "5/minute"

[endpoints]
"POST /login" = "login"
"GET /b" = ["2/minute", "9/minute per user"]
"""


def world_of(*, admin: Address = ANYWHERE, **options: Any) -> ServiceWorld:
    """Return a world whose service has an admin API alone."""
    return ServiceWorld(rules=RULES, service={"grpc": None, "admin": admin, "admin_token": TOKEN}, **options)


@asynccontextmanager
async def admin(world: ServiceWorld, token: str = TOKEN) -> AsyncIterator[httpx.AsyncClient]:
    """Run a world's service and connect an operator to it."""
    await world.service.start()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    url = f"http://{world.service.addresses['admin']}"
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=10) as client:
            yield client
    finally:
        await world.service.stop()


LOGIN = {"endpoint": "POST /login", "identifier": "192.0.2.1"}


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", TOKEN[:-1]])
async def test_nothing_is_done_without_the_token(token: str) -> None:
    """Not even to say whether a path exists below it."""
    world = world_of()
    await world.passed(5, "POST /login", "192.0.2.1")
    async with admin(world, token) as client:
        for method, path in (("POST", "/v1/reset"), ("GET", "/v1/rules"), ("POST", "/v1/reload")):
            answer = await client.request(method, path, json=LOGIN)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert await world.passed(1, "POST /login", "192.0.2.1") == 0
    assert world.heard(RateLimitAdministered) == []


async def test_buckets_are_shown_reset_and_refunded() -> None:
    """Each write is told, with who made it."""
    world = world_of()
    await world.passed(5, "POST /login", "192.0.2.1")
    async with admin(world) as client:
        assert (await client.post("/v1/remaining", json=LOGIN)).json()["remaining"] == 0
        assert (await client.post("/v1/refund", json=LOGIN | {"cost": 2})).json()["done"]
        assert (await client.post("/v1/remaining", json=LOGIN)).json()["remaining"] == 2
        assert (await client.post("/v1/reset", json=LOGIN)).json()["done"]
        assert (await client.post("/v1/remaining", json=LOGIN)).json()["remaining"] == 5
        both = {"endpoint": "GET /b", "identifier": {"ip": "192.0.2.1", "user": "ann"}}
        assert (await client.post("/v1/reset", json=both)).json()["done"]
    told = [
        (one.action, one.endpoint, one.identifier, one.actor, one.done) for one in world.heard(RateLimitAdministered)
    ]
    assert told == [
        ("refund", "POST /login", "192.0.2.1", "127.0.0.1", True),
        ("reset", "POST /login", "192.0.2.1", "127.0.0.1", True),
        ("reset", "GET /b", "ip=192.0.2.1, user=ann", "127.0.0.1", True),
    ]


async def test_what_was_not_done_is_said() -> None:
    """A storage that fails, and arguments that are wrong."""
    world = world_of(storage=FailingStorage())
    async with admin(world) as client:
        failed = await client.post("/v1/reset", json=LOGIN)
        assert (failed.status_code, failed.json()["done"]) == (503, False)
        for body in ({}, LOGIN | {"cost": -1}, LOGIN | {"more": 1}, LOGIN | {"identifier": ""}):
            assert (await client.post("/v1/reset", json=body)).status_code == 400
    assert [one.done for one in world.heard(RateLimitAdministered)] == [False]


async def test_a_kill_switch_is_thrown_and_taken_back() -> None:
    """For one rule or for everything; a rule that nobody knows is refused."""
    world = world_of()
    async with admin(world) as client:
        assert (await client.post("/v1/switch-off", json={"policy": "login", "reason": "incident 7"})).json()["done"]
        assert await world.passed(9, "POST /login") == 9
        state = (await client.get("/v1/rules")).json()
        assert state["switched_off"] == [{"policies": ["login"], "until": None, "reason": "incident 7"}]
        await client.post("/v1/switch-on", json={"policy": "login"})
        assert await world.passed(9, "POST /login") == 5
        assert (await client.post("/v1/switch-off", content=b"")).json()["message"] == "everything is switched off"
        assert await world.passed(9, "POST /login") == 9
        await client.post("/v1/switch-on")
        assert (await client.post("/v1/switch-off", json={"policy": "none"})).status_code == 400
        assert (await client.post("/v1/switch-off", json={"for_seconds": 0})).status_code == 400
    assert [one.action for one in world.heard(RateLimitAdministered)] == ["switch_off", "switch_on"] * 2


async def test_an_override_holds_for_one_client_until_it_ends() -> None:
    """Another rate, or none; it survives a reload, and can be taken back."""
    world = world_of()
    body = {"policy": "login", "identifier": "192.0.2.1", "rate": "20/minute", "for_seconds": 600, "reason": "tender"}
    async with admin(world) as client:
        assert (await client.post("/v1/override", json=body)).json()["done"]
        world.limiter.rules.replace(ServiceWorld(rules=RULES.replace("9/", "8/")).limiter.rules.book)
        assert await world.passed(30, "POST /login", "192.0.2.1") == 20
        assert await world.passed(30, "POST /login", "192.0.2.2") == 5
        (state,) = (await client.get("/v1/rules")).json()["overrides"]
        assert (state["identifier"], state["max_tokens"], state["reason"]) == ("192.0.2.1", 20, "tender")
        await client.post("/v1/override", json=body | {"rate": ""})
        assert await world.passed(99, "POST /login", "192.0.2.1") == 99
        key = {"policy": "login", "identifier": "192.0.2.1"}
        assert (await client.post("/v1/take-back-override", json=key)).json()["done"]
        again = await client.post("/v1/take-back-override", json=key)
        assert (again.status_code, again.json()["reason"]) == (404, "no_override")
        assert (await client.get("/v1/rules")).json()["overrides"] == []
        for wrong in ({"policy": "none"}, {"rate": "often"}, {"for_seconds": 0}, {"identifier": "ann"}):
            assert (await client.post("/v1/override", json=body | wrong)).status_code == 400
    assert [one.done for one in world.heard(RateLimitAdministered)] == [True, True, True, False]


async def test_an_override_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time the rule's own limit holds again."""
    world = world_of()
    monkeypatch.setattr("sluicegate.presentation.service.admin.api.utc_now", lambda: world.now)
    async with admin(world) as client:
        body = {"policy": "login", "identifier": "192.0.2.1", "for_seconds": 600}
        await client.post("/v1/override", json=body)
        assert await world.passed(9, "POST /login", "192.0.2.1") == 9
        world.now += timedelta(seconds=601)
        assert await world.passed(9, "POST /login", "192.0.2.1") == 5
        assert (await client.get("/v1/rules")).json()["overrides"] == []


async def test_the_rules_are_shown() -> None:
    """With their version, as they were written."""
    world = world_of()
    async with admin(world) as client:
        state = (await client.get("/v1/rules")).json()
        assert (state["version"], state["last_error"]) == (world.limiter.rules.version, "")
        assert [name for name, _ in state["rules"]["endpoints"]] == ["POST /login", "GET /b"]


async def test_the_command_line_drives_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over a port or a Unix socket; the exit status tells whether it was done."""
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    world = world_of(admin=Address(path=str(tmp_path / "admin.sock")))
    await world.passed(5, "POST /login", "192.0.2.1")
    async with admin_started(world) as address:
        options = ["--server", address, "--token-file", str(token_file)]

        async def run(*arguments: str) -> tuple[int, str]:
            status = await asyncio.to_thread(main, [*arguments, *options])
            told = capsys.readouterr()
            return status, (told.out + told.err).strip()

        assert await run("remaining", "POST /login", "192.0.2.1") == (0, "0 of 5 left, full again in 60 s")
        assert await run("reset", "POST /login", "192.0.2.1") == (0, "done")
        assert await run("remaining", "POST /login", "192.0.2.1") == (0, "5 of 5 left")
        assert (await run("remaining", "POST /logon", "192.0.2.1"))[0] == 1
        status, text = await run("admin", "take-back-override", "login", "192.0.2.1")
        assert (status, text) == (1, "sluicegate: not done: No such override was added.")
        assert (await run("admin", "refund", "POST /login", "192.0.2.1", "--cost", "2"))[0] == 0
        assert (await run("admin", "override", "login", "192.0.2.1", "9/minute", "--for-seconds", "60"))[0] == 0
        assert (await run("admin", "take-back-override", "login", "192.0.2.1"))[0] == 0
        assert (await run("admin", "switch-off", "login", "--for-seconds", "60"))[0] == 0
        assert (await run("admin", "switch-on", "login"))[0] == 0
        assert (await run("admin", "reload"))[0] == 0
        assert '"version"' in (await run("admin", "rules"))[1]
        assert (await run("admin", "switch-off", "none"))[0] == 2
        token_file.write_text("another-token-entirely")
        status, text = await run("admin", "reload")
        assert (status, text.rpartition(": ")[2]) == (2, "Bearer TOKEN.")
    assert (await run("admin", "reload"))[0] == 2  # nobody answers


@asynccontextmanager
async def admin_started(world: ServiceWorld) -> AsyncIterator[str]:
    """Run a world's service, and return the address of its admin API."""
    await world.service.start()
    try:
        yield world.service.addresses["admin"]
    finally:
        await world.service.stop()
