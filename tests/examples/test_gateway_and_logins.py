"""The examples whose costs are known by their answers."""

import asyncio
from typing import Any

import httpx
import pytest

from support.examples import load_example

pytest.importorskip("uvicorn")
ANN = {"Authorization": "Bearer key-of-ann"}


@pytest.fixture
async def gateway() -> Any:
    """Return a client of the gateway, and its module."""
    module = load_example("llm_gateway.py")
    module.SECONDS_A_TOKEN = 0.0
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(module.app), base_url="http://gateway", headers=ANN
    ) as client:
        yield client, module


def limiter_of(module: Any) -> Any:
    """Return the gateway's limiter, once it has answered."""
    return module.app.middleware_stack.app._limiter


async def left(module: Any, scope: str, identifier: str) -> int:
    """Return the tokens that one of the rules has left."""
    named = {"user": "nobody", "team": "none", "model": "none"} | {scope: identifier}
    peeked = await limiter_of(module).get_remaining(endpoint="POST /models/{model}/chat", identifier=named)
    return int(peeked.value)


async def test_a_completion_costs_what_it_used(gateway: Any) -> None:
    """Prompt and answer of twelve and nine tokens, of which every rule is charged, and none of the estimate is."""
    client, module = gateway
    answer = await client.post("/models/small/chat", content="tell me more, and more of all that there is here")
    assert answer.status_code == 200
    assert answer.text.endswith("data: [DONE]\n\n")
    words = answer.text.count("data: ") - 1
    assert await left(module, "user", "ann") == 2000 - 12 - words


async def test_the_estimate_is_reserved(gateway: Any) -> None:
    """So many at once are let in as could use all that they may; who asks for less gets in more often."""
    client, _ = gateway
    first = await asyncio.gather(*[client.post("/models/small/chat", content="a b c") for _ in range(8)])
    assert sorted(answer.status_code for answer in first) == [200] * 3 + [429] * 5
    small = await asyncio.gather(
        *[client.post("/models/small/chat", content="a b c", headers={"X-Max-Tokens": "5"}) for _ in range(8)]
    )
    assert [answer.status_code for answer in small] == [200] * 8


async def test_users_of_a_team_share_its_tokens(gateway: Any) -> None:
    """Ann has room for three estimates of her own; of the team's share that leaves room for two of Bob's."""
    client, _ = gateway
    ask = [client.post("/models/small/chat", content="a b c") for _ in range(8)]
    bob = {"Authorization": "Bearer key-of-bob"}
    ask += [client.post("/models/small/chat", content="a b c", headers=bob) for _ in range(8)]
    statuses = [answer.status_code for answer in await asyncio.gather(*ask)]
    assert (statuses[:8].count(200), statuses[8:].count(200)) == (3, 2)


def test_only_failed_logins_count() -> None:
    """Whoever knows the password logs in as often as they like, until somebody has guessed too often for their account."""
    client = load_example("login_failures.py").app.test_client()

    def log_in(password: str, address: str = "192.0.2.1") -> int:
        data = {"user": "ann", "password": password}
        return int(client.post("/login", data=data, environ_base={"REMOTE_ADDR": address}).status_code)

    assert [log_in("correct horse") for _ in range(20)] == [200] * 20
    assert [log_in("wrong") for _ in range(6)] == [401] * 5 + [429]
    assert [log_in("wrong", "198.51.100.1") for _ in range(6)] == [401] * 5 + [429]
    assert log_in("correct horse", "203.0.113.1") == 429
