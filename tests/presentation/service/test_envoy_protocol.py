"""The Envoy rate limit protocol over gRPC, asked by an independent client what the reference server's tests ask, and more."""

import asyncio
from typing import Any

import grpc
import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.unknown_fields import UnknownFieldSet
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from sluicegate.presentation.service.descriptor_answer import DescriptorLimiter
from sluicegate.presentation.service.envoy.messages import RateLimitRequest, RateLimitResponse
from sluicegate.presentation.service.settings import ServiceLimits
from sluicegate.testing import FailingStorage
from support.awaited_storage import AwaitedStorage
from support.rate_limit_service import OK, OVER, ServiceWorld, descriptor, running

BASIC = """
domain: basic
descriptors:
  - {key: key1, rate_limit: {unit: second, requests_per_unit: 50}}
  - {key: key2, rate_limit: {unit: minute, requests_per_unit: 20}}
  - {key: key3, rate_limit: {unit: hour, requests_per_unit: 10}}
  - {key: key4, rate_limit: {unit: day, requests_per_unit: 20}}
  - {key: three, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: month, rate_limit: {unit: month, requests_per_unit: 3}}
  - {key: week, rate_limit: {unit: week, requests_per_unit: 3}}
  - {key: ten_minutes, rate_limit: {unit: minute, unit_multiplier: 10, requests_per_unit: 3}}
  - {key: named, rate_limit: {unit: minute, requests_per_unit: 3, name: per-user}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: nothing, rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 3}}
  - {key: files, value: files/*, share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 10}}
  - {key: files, value: own/*, rate_limit: {unit: hour, requests_per_unit: 10}}
"""


async def test_an_unknown_domain_passes() -> None:
    """Case 1: one status OK, without a limit."""
    async with running(ServiceWorld(BASIC)) as client:
        response = await client.ask("foo", {"key1": "x"})
        assert response.overall_code == OK
        (status,) = response.statuses
        assert (status.code, status.HasField("current_limit"), status.limit_remaining) == (OK, False, 0)


async def test_a_known_descriptor_is_told_its_limit() -> None:
    """Case 2: 50 a second, 49 left."""
    async with running(ServiceWorld(BASIC)) as client:
        response = await client.ask("basic", {"key1": "x"})
        (status,) = response.statuses
        limit = status.current_limit
        assert (limit.requests_per_unit, limit.unit, status.limit_remaining) == (50, 1, 49)
        assert status.duration_until_reset.seconds == 1  # a fiftieth of a second, rounded up: Envoy cuts it off


async def test_the_limit_is_enforced_and_the_remainder_falls() -> None:
    """Case 3: of 25 calls 20 pass, with 19 to 0 left."""
    async with running(ServiceWorld(BASIC)) as client:
        responses = [await client.ask("basic", {"key2": "x"}) for _ in range(25)]
        assert [one.overall_code for one in responses] == [OK] * 20 + [OVER] * 5
        assert [one.statuses[0].limit_remaining for one in responses] == [*range(19, -1, -1)] + [0] * 5
        assert (await client.ask("basic", {"key2": "y"})).statuses[0].limit_remaining == 19


@pytest.mark.parametrize(("independent", "left_at_the_end"), [(False, 10), (True, 5)])
async def test_two_descriptors(independent: bool, left_at_the_end: int) -> None:
    """Case 4: over from the 11th call on. A denied call charges neither, unless each is to be counted for itself."""
    world = ServiceWorld(BASIC, service={"independent": independent})
    async with running(world) as client:
        responses = [await client.ask("basic", {"key2": "x"}, {"key3": "x"}) for _ in range(15)]
        assert [one.overall_code for one in responses] == [OK] * 10 + [OVER] * 5
        assert [one.statuses[0].code for one in responses] == [OK] * 15
        assert [one.statuses[1].code for one in responses] == [OK] * 10 + [OVER] * 5
        assert responses[-1].statuses[0].limit_remaining == left_at_the_end


async def test_the_time_until_reset_shrinks() -> None:
    """Case 5: two seconds later it is two seconds less."""
    world = ServiceWorld(BASIC)
    async with running(world) as client:
        first = await client.ask("basic", {"key4": "x"})
        world.clock.advance(2)
        looked = await client.ask("basic", descriptor({"key4": "x"}, hits=0))
        assert first.statuses[0].duration_until_reset.seconds == 4320
        assert looked.statuses[0].duration_until_reset.seconds == 4318


async def test_waiting_as_long_as_it_says_is_enough() -> None:
    """On a denial `duration_until_reset` is the time after which the same call passes, and no second more."""
    world = ServiceWorld(BASIC)
    async with running(world) as client:
        await client.codes(3, "basic", {"three": "x"})
        wait = (await client.ask("basic", {"three": "x"})).statuses[0].duration_until_reset.seconds
        assert wait == 20
        world.clock.advance(wait - 1)
        assert (await client.ask("basic", {"three": "x"})).overall_code == OVER
        world.clock.advance(1)
        assert (await client.ask("basic", {"three": "x"})).overall_code == OK


async def test_values_that_share_a_threshold() -> None:
    """Case 8: ten on one file, and the next on another file is over; without `share_threshold` each has its own."""
    async with running(ServiceWorld(BASIC)) as client:
        assert await client.codes(10, "basic", {"files": "files/a.pdf"}) == [OK] * 10
        assert await client.codes(1, "basic", {"files": "files/b.csv"}) == [OVER]
        await client.codes(10, "basic", {"files": "own/a.pdf"})
        assert (await client.ask("basic", {"files": "own/b.csv"})).statuses[0].limit_remaining == 9


async def test_unlimited_passes_uncounted() -> None:
    """Everything is left, and no limit is told."""
    async with running(ServiceWorld(BASIC, storage=FailingStorage())) as client:
        (status,) = (await client.ask("basic", {"free": "x"})).statuses
        assert (status.code, status.limit_remaining, status.HasField("current_limit")) == (OK, 2**32 - 1, False)


async def test_a_limit_of_nothing_denies_and_charges_no_other() -> None:
    """`requests_per_unit: 0` is always over."""
    async with running(ServiceWorld(BASIC)) as client:
        response = await client.ask("basic", {"key3": "x"}, {"nothing": "x"})
        assert [status.code for status in response.statuses] == [OK, OVER]
        assert response.overall_code == OVER
        assert [status.limit_remaining for status in response.statuses] == [10, 0]


async def test_a_shadow_counts_and_never_denies() -> None:
    """Five pass where three would; the remainder is that of the shadow's bucket."""
    async with running(ServiceWorld(BASIC)) as client:
        responses = [await client.ask("basic", {"shadow": "x"}) for _ in range(5)]
        assert [one.overall_code for one in responses] == [OK] * 5
        assert [one.statuses[0].limit_remaining for one in responses] == [2, 1, 0, 0, 0]
        assert {one.statuses[0].current_limit.requests_per_unit for one in responses} == {3}


async def test_an_addend_is_the_number_of_hits() -> None:
    """The request's is for all descriptors that have none of their own; 0 of their own is a look."""
    async with running(ServiceWorld(BASIC)) as client:
        response = await client.ask("basic", {"key2": "x"}, descriptor({"key3": "x"}, hits=4), hits=7)
        assert [status.limit_remaining for status in response.statuses] == [13, 6]
        looked = await client.ask("basic", descriptor({"key2": "x"}, hits=0), descriptor({"key3": "x"}, hits=0), hits=7)
        assert [status.limit_remaining for status in looked.statuses] == [13, 6]
        over = await client.ask("basic", {"key3": "x"}, hits=7)
        assert (over.overall_code, over.statuses[0].limit_remaining) == (OVER, 6)  # a denied call charges nothing


async def test_a_look_denies_once_nothing_is_left() -> None:
    """Ask at the beginning, pay at the end: three calls pass, the fourth does not."""
    async with running(ServiceWorld(BASIC)) as client:
        codes = []
        for _ in range(4):
            codes.append((await client.ask("basic", descriptor({"three": "x"}, hits=0))).overall_code)
            if codes[-1] == OK:
                await client.ask("basic", {"three": "x"})
        assert codes == [OK, OK, OK, OVER]


async def test_more_hits_than_the_bucket_holds_never_pass() -> None:
    """No time is named after which they would."""
    async with running(ServiceWorld(BASIC)) as client:
        response = await client.ask("basic", {"three": "x"}, hits=4)
        assert response.overall_code == OVER
        assert not response.statuses[0].HasField("duration_until_reset")
        assert "retry-after" not in headers(response)
        assert (await client.ask("basic", {"three": "x"})).statuses[0].limit_remaining == 2


async def test_negative_hits_are_a_refund() -> None:
    """Of Envoy 1.40, whose field the independent client does not know: the answer is read as it is on the wire."""
    async with running(ServiceWorld(BASIC)) as client:
        await client.codes(3, "basic", {"three": "x"})
        request = RateLimitRequest(domain="basic")
        one = request.descriptors.add(is_negative_hits=True)
        one.entries.add(key="three", value="x")
        one.hits_addend.value = 2
        refunded = await client.ask(
            "basic", rls_pb2.RateLimitRequest.FromString(request.SerializeToString()).descriptors[0]
        )
        assert (refunded.overall_code, refunded.statuses[0].limit_remaining) == (OK, 2)
        assert await client.codes(3, "basic", {"three": "x"}) == [OK, OK, OVER]


async def test_a_request_may_bring_its_limit() -> None:
    """It holds in place of the configured one, for the whole descriptor, in a known domain."""
    async with running(ServiceWorld(BASIC)) as client:
        asked = descriptor({"key2": "x", "more": "y"}, limit=(2, 3))
        responses = [await client.ask("basic", asked) for _ in range(3)]
        assert [one.overall_code for one in responses] == [OK, OK, OVER]
        limit = responses[0].statuses[0].current_limit
        assert (limit.requests_per_unit, limit.unit) == (2, 3)
        assert (await client.ask("basic", descriptor({"key2": "z", "more": "y"}, limit=(2, 3)))).overall_code == OK
        assert (await client.ask("unknown", asked)).overall_code == OK
        assert await client.codes(1, "basic", descriptor({"k": "v"}, limit=(0, 1))) == [OVER]


@pytest.mark.parametrize(
    ("key", "unit", "multiplier"), [("month", 5, None), ("week", 7, None), ("ten_minutes", 2, 10), ("three", 2, None)]
)
async def test_any_window_is_told(key: str, unit: int, multiplier: int | None) -> None:
    """Units that the reference has, and others as so many times a unit, a field of Envoy 1.40."""
    async with running(ServiceWorld(BASIC)) as client:
        response = await client.ask("basic", {key: "x"})
        assert response.statuses[0].current_limit.unit == unit
        limit = RateLimitResponse.FromString(response.SerializeToString()).statuses[0].current_limit
        assert limit.requests_per_unit == 3
        assert (limit.unit_multiplier.value if limit.HasField("unit_multiplier") else None) == multiplier
        assert len(UnknownFieldSet(response.statuses[0].current_limit)) == (multiplier is not None)


async def test_the_name_of_a_limit_is_told() -> None:
    """Envoy writes it into a header field."""
    async with running(ServiceWorld(BASIC)) as client:
        assert (await client.ask("basic", {"named": "x"})).statuses[0].current_limit.name == "per-user"


REPLACES = """
domain: replaces
descriptors:
  - {key: a, rate_limit: {unit: minute, requests_per_unit: 2, name: general}}
  - {key: b, rate_limit: {unit: minute, requests_per_unit: 5, name: special, replaces: [{name: general}]}}
  - {key: c, rate_limit: {unlimited: true, name: free, replaces: [{name: general}, {name: special}]}}
"""


async def test_a_limit_replaces_others_of_the_request() -> None:
    """Those do not count beside it, and do without it."""
    async with running(ServiceWorld(REPLACES)) as client:
        assert await client.codes(6, "replaces", {"a": "x"}, {"b": "x"}) == [OK] * 5 + [OVER]
        assert await client.codes(3, "replaces", {"a": "x"}) == [OK, OK, OVER]
        assert await client.codes(9, "replaces", {"a": "x"}, {"b": "x"}, {"c": "x"}) == [OK] * 9


def headers(response: Any) -> dict[str, str]:
    """Return the header fields that a client is to get."""
    return {field.key: field.value for field in response.response_headers_to_add}


async def test_clients_are_told_of_their_quota() -> None:
    """Header fields of the descriptor that is nearest to its limit, and on a denial Retry-After and problem details."""
    async with running(ServiceWorld(BASIC)) as client:
        allowed = await client.ask("basic", {"key2": "x"}, {"named": "x"})
        assert headers(allowed) == {"ratelimit-policy": '"per-user";q=3;w=60', "ratelimit": '"per-user";r=2;t=20'}
        await client.codes(2, "basic", {"named": "x"})
        denied = await client.ask("basic", {"key2": "x"}, {"named": "x"})
        assert headers(denied) == {
            "content-type": "application/problem+json",
            "cache-control": "no-store",
            "retry-after": "20",
            "ratelimit-policy": '"per-user";q=3;w=60',
            "ratelimit": '"per-user";r=0;t=20',
        }
        assert b'"status":429' in denied.raw_body


async def test_header_fields_and_body_can_be_left_out() -> None:
    """Retry-After stays."""
    async with running(ServiceWorld(BASIC, service={"headers": "none", "denial_body": False})) as client:
        assert headers(await client.ask("basic", {"three": "x"})) == {}
        await client.codes(2, "basic", {"three": "x"})
        denied = await client.ask("basic", {"three": "x"})
        assert (headers(denied), denied.raw_body) == ({"retry-after": "20"}, b"")


@pytest.mark.parametrize(
    ("domain", "asked", "message"),
    [
        ("", [{"key1": "x"}], "rate limit domain must not be empty"),
        ("basic", [], "rate limit descriptor list must not be empty"),
        ("basic", [{}], "expected at least one entry"),
        ("basic", [{"": "x"}], "an entry's key must not be empty"),
        ("basic", [descriptor({"k": "v"}, limit=(1, 0))], "limit.unit=0: expected one of second"),
        ("basic", [descriptor({"k": "v"}, limit=(1, 99))], "limit.unit=99"),
        ("basic", [{"key1": "x"}] * 5, "descriptors: 5, expected at most 4"),
        ("basic", [{str(n): "x" for n in range(4)}], "4 entries, expected at most 3"),
    ],
)
async def test_a_wrong_request_is_an_error_with_its_reason(domain: str, asked: list[Any], message: str) -> None:
    """INVALID_ARGUMENT, and the connection goes on."""
    limits = ServiceLimits(max_descriptors=4, max_entries=3)
    async with running(ServiceWorld(BASIC, service={"limits": limits})) as client:
        with pytest.raises(grpc.aio.AioRpcError, match=message) as refused:
            await client.ask(domain, *asked)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert await client.codes(1, "basic", {"key1": "x"}) == [OK]


async def test_what_is_no_message_is_an_error() -> None:
    """Neither a crash nor an answer; one that is too long is refused before it is read."""
    async with running(ServiceWorld(BASIC)) as client:
        call = client.channel.unary_unary("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
        for data, code in ((b"\xff\xff", "INVALID_ARGUMENT"), (b"x" * 100_000, "RESOURCE_EXHAUSTED")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(data, timeout=5)
            assert refused.value.code().name == code
        assert await client.codes(1, "basic", {"key1": "x"}) == [OK]


async def test_what_is_no_http_2_ends_the_connection() -> None:
    """And others go on."""
    world = ServiceWorld(BASIC)
    async with running(world) as client:
        host, _, port = world.service.addresses["grpc"].rpartition(":")
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(garbage)
            await asyncio.wait_for(reader.read(), 20)
            writer.close()
        assert await client.codes(1, "basic", {"key1": "x"}) == [OK]


async def test_a_long_value_is_counted() -> None:
    """A client cannot get past its limit with a long header field."""
    async with running(ServiceWorld(BASIC)) as client:
        assert await client.codes(4, "basic", {"three": "x" * 30_000}) == [OK, OK, OK, OVER]
        assert await client.codes(1, "basic", {"three": "x" * 30_001}) == [OK]


async def test_the_failure_policy_answers_while_the_storage_fails() -> None:
    """Without a made-up remainder; or it is an error, where the proxy's own policy is wanted."""
    async with running(ServiceWorld(BASIC, storage=FailingStorage())) as client:
        response = await client.ask("basic", {"three": "x"})
        assert (response.overall_code, response.statuses[0].HasField("current_limit")) == (OK, False)
    async with running(ServiceWorld(BASIC, storage=FailingStorage(), on_storage_error="deny")) as client:
        response = await client.ask("basic", {"three": "x"})
        assert (response.overall_code, response.statuses[0].code) == (OVER, OVER)
    async with running(ServiceWorld(BASIC, storage=FailingStorage(), service={"storage_errors": "error"})) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.ask("basic", {"three": "x"})
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_an_answer_comes_within_the_callers_deadline() -> None:
    """However long the storage takes: the failure policy answers before the caller gives up."""

    class Hanging(AwaitedStorage):
        async def take(self, requests: Any, /) -> Any:
            await asyncio.sleep(60)

    async with running(ServiceWorld(BASIC, storage=Hanging(), deadline_ms=60_000)) as client:
        await client.ask("unknown", {"three": "x"})  # connects
        assert (await client.ask("basic", {"three": "x"}, timeout_s=0.5)).overall_code == OK


RULES_FILE = """
unmatched = "2/minute"

[endpoints]
"POST /login" = "5/minute"
"GET /items/{id}" = ["3/minute", "10/hour burst 2 per user"]
send = { rate = "1/minute per global", cost = 1 }
"""


async def test_the_rules_file_is_a_domain() -> None:
    """Entries name an endpoint, or a method and a path, and the client by scope."""
    async with running(ServiceWorld(BASIC, rules=RULES_FILE)) as client:
        login = {"endpoint": "POST /login", "remote_address": "192.0.2.1"}
        responses = [await client.ask("sluicegate", login) for _ in range(6)]
        assert [one.overall_code for one in responses] == [OK] * 5 + [OVER]
        limit = responses[0].statuses[0].current_limit
        assert (limit.requests_per_unit, limit.unit, limit.name) == (5, 2, "ip-5-60s")
        item = {"method": "GET", "path": "/items/7?x=1", "remote_address": "192.0.2.1", "user": "ann"}
        assert await client.codes(3, "sluicegate", item) == [OK, OK, OVER]
        assert await client.codes(1, "sluicegate", item | {"user": "bob"}) == [OK]
        assert await client.codes(2, "sluicegate", {"generic_key": "send"}) == [OK, OVER]
        assert await client.codes(3, "sluicegate", {"path": "/none", "remote_address": "::1"}) == [OK, OK, OVER]
        window = (await client.ask("sluicegate", item)).statuses[0].current_limit
        assert (window.requests_per_unit, window.unit) == (2, 2)  # two in twelve minutes


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"user": "ann"}, "expected an entry endpoint, generic_key or path"),
        ({"path": "items"}, "expected a path that begins with /"),
        ({"endpoint": "POST /login"}, "need an entry 'ip'"),
        ({"endpoint": "POST /login", "user": "ann"}, "has no entry for the scope 'ip'"),
    ],
)
async def test_entries_that_name_no_client_are_refused(entries: dict[str, str], message: str) -> None:
    """A mistake in the proxy's configuration must not count all clients as one."""
    async with running(ServiceWorld(rules=RULES_FILE)) as client:
        with pytest.raises(grpc.aio.AioRpcError, match=message):
            await client.ask("sluicegate", entries)


async def test_other_rules_hold_at_once() -> None:
    """Case 7: a domain comes and goes while the service runs."""
    world = ServiceWorld(BASIC)
    async with running(world) as client:
        assert not (await client.ask("reload", {"key1": "x"})).statuses[0].HasField("current_limit")
        before = world.limiter.rules.book
        world.limiter.rules.replace(ServiceWorld(BASIC.replace("basic", "reload")).limiter.rules.book)
        assert (await client.ask("reload", {"key1": "x"})).statuses[0].current_limit.requests_per_unit == 50
        world.limiter.rules.replace(before)
        assert not (await client.ask("reload", {"key1": "x"})).statuses[0].HasField("current_limit")


async def test_a_mistake_of_ours_is_told_to_the_log_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets INTERNAL and no word of what went wrong."""

    async def fail(*_: object) -> None:
        raise RuntimeError("the secret is 42")

    async with running(ServiceWorld(BASIC)) as client:
        with monkeypatch.context() as patched:
            patched.setattr(DescriptorLimiter, "decide", fail)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.ask("basic", {"key1": "a"})
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
        assert (await client.ask("basic", {"key1": "a"})).overall_code == OK
    assert "the secret is 42" in caplog.text


async def test_health_and_reflection() -> None:
    """Load balancers and tools such as grpcurl find what they ask for."""
    world = ServiceWorld(BASIC)
    async with running(world) as client:
        stub = health_pb2_grpc.HealthStub(client.channel)
        for name in ("", "envoy.service.ratelimit.v3.RateLimitService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

        def reflect() -> tuple[Any, str]:
            with grpc.insecure_channel(world.service.addresses["grpc"]) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                file = database.FindFileContainingSymbol("envoy.service.ratelimit.v3.RateLimitService")
                return database.get_services(), file.service[0].method[0].name

        services, method = await asyncio.to_thread(reflect)
        assert "envoy.service.ratelimit.v3.RateLimitService" in services
        assert method == "ShouldRateLimit"
