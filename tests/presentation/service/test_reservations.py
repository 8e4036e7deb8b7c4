"""Reservations and calls in flight over HTTP, Kuadrant's gRPC service, and hits that are charged after the fact."""

from typing import Any, Self

import grpc
import httpx
import pytest
from envoy.service.ratelimit.v3 import rls_pb2

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.service.envoy import messages
from sluicegate.testing import FailingStorage
from support.awaited_storage import AwaitedStorage
from support.rate_limit_service import ANYWHERE, OK, OVER, RateLimitClient, ServiceWorld, descriptor, running

RULES = """
[policies]
tokens = "100/minute"
calls = "2 in flight per user"

[endpoints]
"POST /v1/chat" = "tokens"
"POST /v1/run" = "calls"
"""
CONFIG = """
domain: llm
descriptors:
  - {key: user, rate_limit: {unit: minute, requests_per_unit: 100}}
  - {key: team, rate_limit: {unit: minute, requests_per_unit: 150}}
  - {key: spent, rate_limit: {unit: minute, requests_per_unit: 100, max_debt: 500}}
  - {key: none, rate_limit: {unit: minute, requests_per_unit: 0}}
"""


def world_of(**options: Any) -> ServiceWorld:
    """Return a world whose service serves HTTP and gRPC."""
    return ServiceWorld(CONFIG, rules=RULES, service={"http": ANYWHERE}, **options)


class HttpClient:
    """Post JSON to a service."""

    def __init__(self, world: ServiceWorld) -> None:
        self._client = httpx.AsyncClient(base_url=f"http://{world.service.addresses['http']}", timeout=10)

    async def post(self, verb: str, **body: Any) -> tuple[int, Any]:
        """Return the status and the answer."""
        answer = await self._client.post(f"/v1/{verb}", json=body)
        return answer.status_code, answer.json()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


CHAT = {"endpoint": "POST /v1/chat", "identifier": "ann"}


async def test_tokens_are_reserved_and_committed_over_http() -> None:
    """What was not needed comes back; a second commit changes nothing, and says so."""
    world = world_of()
    async with running(world), HttpClient(world) as client:
        status, reserved = await client.post("reserve", **CHAT, cost=80, ttl_seconds=30)
        assert (status, reserved["allowed"], reserved["remaining"], reserved["expires_in"]) == (200, True, 20, 30.0)
        assert reserved["headers"]["ratelimit"] == '"tokens";r=20;t=48'
        status, denied = await client.post("reserve", **CHAT, cost=50)
        assert (status, denied["allowed"], denied["id"], denied["retry_after"]) == (200, False, None, 18.0)
        status, settled = await client.post("commit", id=reserved["id"], cost=30)
        assert (status, settled["applied"], settled["charged"], settled["returned"]) == (200, True, 30, 50)
        status, again = await client.post("commit", id=reserved["id"], cost=30)
        assert (status, again["applied"]) == (200, False)
        _, other = await client.post("reserve", path="/v1/chat", method="POST", identifier="ann", cost=70)
        assert (other["allowed"], other["remaining"]) == (True, 0)
        assert (await client.post("cancel", id=other["id"]))[1]["returned"] == 70


async def test_more_than_was_reserved_becomes_debt() -> None:
    """Nothing passes until it is repaid."""
    world = world_of()
    async with running(world), HttpClient(world) as client:
        _, reserved = await client.post("reserve", **CHAT, cost=10)
        _, settled = await client.post("commit", id=reserved["id"], cost=130)
        assert (settled["charged"], settled["debt"]) == (130, 30)
        assert not (await client.post("check", **CHAT))[1]["allowed"]


async def test_a_reservation_can_be_extended_until_it_has_ended() -> None:
    """409 once it has."""
    world = world_of()
    async with running(world), HttpClient(world) as client:
        _, reserved = await client.post("reserve", **CHAT, cost=10, ttl_seconds=10)
        world.clock.advance(9)
        assert (await client.post("extend", id=reserved["id"], ttl_seconds=10))[0] == 200
        world.clock.advance(11)
        status, late = await client.post("extend", id=reserved["id"], ttl_seconds=10)
        assert (status, late["reason"]) == (409, "ended")


async def test_several_checks_are_reserved_together_over_http() -> None:
    """All of them or none; a commit settles each, at one cost for all or at its own."""
    world = world_of()
    other = {"endpoint": "POST /v1/chat", "identifier": "bob"}
    async with running(world), HttpClient(world) as client:
        both = [CHAT | {"cost": 80}, {"path": "/v1/chat", "method": "POST", "identifier": "bob", "cost": 30}]
        status, reserved = await client.post("reserve", checks=both, ttl_seconds=30)
        assert (status, reserved["allowed"], reserved["expires_in"]) == (200, True, 30.0)
        assert [one["remaining"] for one in reserved["checks"]] == [20, 70]
        status, denied = await client.post("reserve", checks=[other | {"cost": 60}, CHAT | {"cost": 60}])
        assert (status, denied["allowed"], denied["id"]) == (200, False, None)
        assert [(one["allowed"], one["remaining"]) for one in denied["checks"]] == [(True, 70), (False, 20)]
        assert (await client.post("extend", id=reserved["id"], ttl_seconds=60))[0] == 200
        status, settled = await client.post("commit", id=reserved["id"], cost=[50, None])
        assert [(one["charged"], one["returned"]) for one in settled["checks"]] == [(50, 30), (30, 0)]
        _, again = await client.post("cancel", id=reserved["id"])
        assert [one["applied"] for one in again["checks"]] == [False, False]
        assert (await client.post("reserve", **CHAT, checks=[other]))[0] == 400
        assert (await client.post("commit", id=reserved["id"], cost=[1]))[0] == 400


async def test_calls_in_flight_are_counted_over_http() -> None:
    """Until they are released."""
    world = world_of()
    run = {"endpoint": "POST /v1/run", "identifier": "ann"}
    async with running(world), HttpClient(world) as client:
        first, second, third = [(await client.post("acquire", **run))[1] for _ in range(3)]
        assert [one["allowed"] for one in (first, second, third)] == [True, True, False]
        assert (await client.post("renew", id=first["id"]))[0] == 200
        assert (await client.post("release", id=first["id"]))[1]["applied"]
        assert (await client.post("acquire", **run))[1]["allowed"]


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("commit", {"id": "nonsense"}),
        ("commit", {"id": ""}),
        ("commit", {"cost": 1}),
        ("reserve", CHAT | {"ttl_seconds": 0}),
        ("reserve", CHAT | {"cost": {"none": 1}}),
        ("extend", {"id": "x"}),
        ("release", {"id": "x", "more": 1}),
    ],
)
async def test_wrong_bodies_are_refused(verb: str, body: dict[str, Any]) -> None:
    """Status 400."""
    world = world_of()
    async with running(world), HttpClient(world) as client:
        assert (await client.post(verb, **body))[0] == 400


class KuadrantClient:
    """Ask Kuadrant's service.

    Args:
        client: Whose channel is used.
    """

    def __init__(self, client: RateLimitClient) -> None:
        self._channel = client.channel

    async def call(self, method: str, request: Any, response: Any) -> Any:
        """Call a method."""
        call = self._channel.unary_unary(f"/kuadrant.service.ratelimit.v1.RateLimitService/{method}")
        return response.FromString(await call(request.SerializeToString(), timeout=5))

    async def reserve(self, amount: int, *descriptors: dict[str, str], ttl_s: int = 0) -> Any:
        """Reserve."""
        request = messages.ReserveRequest(domain="llm", amount=amount)
        for one in descriptors:
            request.descriptors.add().MergeFromString(descriptor(one).SerializeToString())
        if ttl_s:
            request.ttl.seconds = ttl_s
        return await self.call("Reserve", request, messages.ReserveResponse)

    async def commit(self, reservation_id: str, amount: int, **entries: str) -> Any:
        """Commit."""
        request = messages.CommitRequest(domain="llm", reservation_id=reservation_id, actual_amount=amount)
        if entries:
            request.descriptors.add().MergeFromString(descriptor(entries).SerializeToString())
        return await self.call("Commit", request, messages.CommitResponse)

    async def rate_limit(self, method: str, hits: int, **entries: str) -> Any:
        """Call one of the methods that take a request of the Envoy protocol."""
        request = rls_pb2.RateLimitRequest(domain="llm", descriptors=[descriptor(entries)], hits_addend=hits)
        return await self.call(method, request, rls_pb2.RateLimitResponse)


async def left(client: RateLimitClient, **entries: str) -> int:
    """Return what is left of a descriptor."""
    answer = await client.ask("llm", descriptor(entries, hits=0))
    remaining: int = answer.statuses[0].limit_remaining
    return remaining


async def test_tokens_are_reserved_and_committed_over_grpc() -> None:
    """From all descriptors or from none."""
    async with running(world_of()) as client:
        kuadrant = KuadrantClient(client)
        reserved = await kuadrant.reserve(80, {"user": "ann"}, {"team": "a"}, ttl_s=30)
        assert reserved.code == OK
        assert (await left(client, user="ann"), await left(client, team="a")) == (20, 70)
        denied = await kuadrant.reserve(50, {"team": "a"}, {"user": "ann"})
        assert (denied.code, denied.reservation_id) == (OVER, "")
        assert await left(client, team="a") == 70
        assert (await kuadrant.commit(reserved.reservation_id, 30)).code == OK
        assert (await left(client, user="ann"), await left(client, team="a")) == (70, 120)
        assert (await kuadrant.reserve(1, {"none": "x"})).code == OVER
        free = await kuadrant.reserve(1, {"unknown": "x"})
        assert free.code == OK


async def test_a_reservation_that_the_storage_did_not_decide() -> None:
    """The failure policy answers, or it is an error where the caller's own policy is wanted; then nothing stays reserved."""
    async with running(ServiceWorld(CONFIG, storage=FailingStorage(), on_storage_error="local")) as client:
        kuadrant = KuadrantClient(client)
        reserved = await kuadrant.reserve(80, {"user": "ann"}, {"team": "a"})
        assert reserved.code == OK
        assert (await kuadrant.reserve(80, {"team": "a"}, {"user": "ann"})).code == OVER
        assert (await kuadrant.commit(reserved.reservation_id, 0)).code == OK
        assert (await kuadrant.reserve(100, {"team": "a"}, {"user": "ann"})).code == OK
    options: Any = {"storage": FailingStorage(), "on_storage_error": "local", "service": {"storage_errors": "error"}}
    async with running(ServiceWorld(CONFIG, **options)) as client:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await KuadrantClient(client).reserve(80, {"user": "ann"}, {"team": "a"})
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_check_changes_nothing_and_a_report_is_never_refused() -> None:
    """More than is left becomes debt."""
    async with running(world_of()) as client:
        kuadrant = KuadrantClient(client)
        assert (await kuadrant.rate_limit("CheckRateLimit", 90, user="ann")).overall_code == OK
        assert (await kuadrant.rate_limit("CheckRateLimit", 101, user="ann")).overall_code == OVER
        assert await left(client, user="ann") == 100
        assert (await kuadrant.rate_limit("Report", 60, user="ann")).overall_code == OK
        assert (await kuadrant.rate_limit("Report", 60, user="ann")).overall_code == OK
        assert (await kuadrant.rate_limit("CheckRateLimit", 1, user="ann")).overall_code == OVER
        assert (await kuadrant.commit("", 10, user="bob")).code == OK
        assert await left(client, user="bob") == 90


async def test_a_limit_with_debt_is_charged_after_the_fact() -> None:
    """Envoy asks with 0 at the beginning and with the cost at the end of a stream, however large that is."""
    world = world_of()
    async with running(world) as client:
        assert (await client.ask("llm", descriptor({"spent": "x"}, hits=0))).overall_code == OK
        assert (await client.ask("llm", descriptor({"spent": "x"}, hits=250))).overall_code == OK
        assert (await client.ask("llm", descriptor({"spent": "x"}, hits=0))).overall_code == OVER
        world.clock.advance(91)  # 150 tokens of debt, and one more
        assert (await client.ask("llm", descriptor({"spent": "x"}, hits=0))).overall_code == OK


async def test_wrong_requests_are_errors() -> None:
    """And a storage that keeps no reservations says so."""
    async with running(world_of()) as client:
        kuadrant = KuadrantClient(client)
        for wrong in (kuadrant.reserve(10**13, {"user": "x"}), kuadrant.reserve(1), kuadrant.commit("nonsense", 1)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await wrong
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    world = ServiceWorld(CONFIG, storage=AwaitedStorage())
    async with running(world) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await KuadrantClient(client).reserve(1, {"user": "x"})
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(InvalidInputError):
        ServiceWorld(CONFIG.replace("max_debt: 500", "max_debt: 0"))


@pytest.mark.parametrize(("verb", "path"), [("reserve", "/v1/chat"), ("acquire", "/v1/run")])
async def test_rules_that_are_replaced_in_the_midst_of_a_reservation(
    verb: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that named the endpoint are claimed from: the new ones do not know it, and would let the call pass uncounted."""
    world = world_of()
    current = world.limiter.current_rules

    def then_replaced() -> Any:
        rules = current()
        world.limiter.rules.replace({"GET /": "1/minute"})
        return rules

    async with running(world), HttpClient(world) as client:
        monkeypatch.setattr(world.limiter, "current_rules", then_replaced)
        status, claimed = await client.post(verb, path=path, method="POST", identifier="ann")
        assert (status, claimed["limit"] > 0) == (200, True)
