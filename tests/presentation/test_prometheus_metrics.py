"""The metrics for Prometheus: they equal what happened, whoever asks, and what clients send creates no series."""

import random
from pathlib import Path

import httpx
import pytest

from sluicegate import BufferedEventBus, RateLimitRule, RedisStorage
from sluicegate.application.joint_check import Part
from sluicegate.application.metrics.catalogue import OF_EVENTS, OF_STATE
from sluicegate.metrics import PrometheusMetrics
from sluicegate.presentation.prometheus_metrics import merge_expositions
from sluicegate.testing import FailingStorage
from support.metered import Metered, series_of
from support.redis_servers import RedisServer

ROOT = Path(__file__).parents[2]


async def test_each_decision_is_counted_once_under_the_rule_that_decided() -> None:
    """Allowed, denied by the rule that binds, listed, in shadow mode and switched off."""
    world = Metered()
    await world.ask("POST /login", times=3)
    await world.ask("GET /two", {"ip": "192.0.2.1", "user": "ann"}, times=3)
    await world.ask("GET /tried", times=2)
    await world.ask("POST /login", "192.0.2.66")
    await world.ask("POST /login", "192.0.2.77", times=2)
    world.limiter.rules.switch_off("login")
    await world.ask("POST /login")
    assert world.requests() == {
        ("POST /login", "login", "allowed", "quota"): 2,
        ("POST /login", "login", "denied", "quota"): 1,
        ("GET /two", "tight", "allowed", "quota"): 2,
        ("GET /two", "tight", "denied", "quota"): 1,
        ("GET /tried", "", "allowed", "shadow"): 2,
        ("POST /login", "", "denied", "listed"): 1,
        ("POST /login", "", "allowed", "listed"): 2,
        ("POST /login", "", "allowed", "switched_off"): 1,
    }
    series = world.series()
    assert series["sluicegate_shadow_denied_total", "GET /tried", "tried"] == 1
    assert series["sluicegate_request_duration_seconds_count", "allowed"] == 4
    assert series["sluicegate_rules_switched_off",] == 1


async def test_what_a_failure_policy_answers_is_counted_with_its_cause() -> None:
    """Each policy under its own reason."""
    world = Metered(storage=FailingStorage())
    for endpoint in ("POST /login", "GET /refuses", "GET /guards", "GET /guards"):
        await world.ask(endpoint)
    assert world.requests() == {
        ("POST /login", "login", "allowed", "failed_open"): 1,
        ("GET /refuses", "refuses", "denied", "failed_closed"): 1,
        ("GET /guards", "guards", "allowed", "failed_local"): 1,
        ("GET /guards", "guards", "denied", "failed_local"): 1,
    }
    failures = {key[1]: value for key, value in world.series().items() if key[0] == "sluicegate_failures_total"}
    assert failures == {"allow": 1, "deny": 1, "local": 2}


async def test_a_hundred_thousand_clients_and_paths_create_no_series() -> None:
    """Random identifiers, endpoints and rules of callers; a storage that invents causes."""
    world = Metered('[endpoints]\n"GET /a" = "5/minute"\n"*" = "9/minute"\n')
    chance = random.Random(7)

    async def flood(times: int) -> None:
        for _ in range(times):
            name = chance.getrandbits(64)
            await world.limiter.is_allowed(endpoint="GET /a", identifier=f"{name}")
            await world.limiter.is_allowed(endpoint=f"GET /{name}", identifier=f"{name}")

    await flood(10)
    await world.limiter.check_together([Part("first", "x", rule=RateLimitRule.per_minute(3))])
    before = set(world.series())
    await flood(50_000)
    for number in range(1, 200):
        part = Part(f"key-{number}", "x", rule=RateLimitRule.per_minute(number))
        await world.limiter.check_together([part])
    assert set(world.series()) == before
    assert world.requests()["other", "other", "allowed", "quota"] == 200
    assert sum(world.requests().values()) == 100_020 + 200


async def test_the_configured_limit_and_the_state_of_the_rules_are_gauges() -> None:
    """They follow what is in force at the moment of the scrape."""
    world = Metered({"GET /a": RateLimitRule.per_minute(30, burst=5)})
    limit = ("GET /a", "ip-5-10s", "ip", "enforced")
    assert world.series()["sluicegate_limit_tokens", *limit] == 5
    assert world.series()["sluicegate_limit_refill_tokens_per_second", *limit] == 0.5
    world.limiter.rules.replace({"GET /b": RateLimitRule(7, 60, "user", shadow=True)})
    world.limiter.rules.refuse(ValueError("broken"))
    series = world.series()
    assert [key for key in series if key[0] == "sluicegate_limit_tokens"] == [
        ("sluicegate_limit_tokens", "GET /b", "user-7-7s", "user", "shadow")
    ]
    assert (series["sluicegate_rules_changes_total",], series["sluicegate_rules_valid",]) == (1, 0)
    assert series["sluicegate_rules_refusals_total",] == 1


async def test_events_that_are_lost_are_counted() -> None:
    """Those that found the queue of a buffered bus full."""
    world = Metered(bus=BufferedEventBus(max_events=1))
    for _ in range(3):
        world.bus.publish(type("E", (), {})())
    assert world.series()["sluicegate_events_dropped_total",] == 2
    world.bus._queue.clear()


async def test_the_traffic_with_redis_is_counted(redis_server: RedisServer) -> None:
    """Round trips, and denials that needed none."""
    storage = RedisStorage.from_url(redis_server.url, deadline_ms=5_000)
    world = Metered({"GET /a": RateLimitRule(2, 0.01, "ip")}, storage)
    await world.ask("GET /a", times=5)
    series = world.series()
    await storage.aclose()
    assert series["sluicegate_storage_calls_total",] == 3
    assert 1 <= series["sluicegate_storage_round_trips_total",] <= 3
    assert series["sluicegate_storage_denials_repeated_total",] == 2
    assert series["sluicegate_storage_breaker_open",] == 0


async def test_the_breaker_shows(redis_server: RedisServer) -> None:
    """Open while the server is away."""
    storage = RedisStorage.from_url("redis://127.0.0.1:1", deadline_ms=200)
    world = Metered({"GET /a": "5/minute"}, storage)
    await world.ask("GET /a", times=2)
    series = world.series()
    await storage.aclose()
    assert series["sluicegate_storage_breaker_open",] == 1


async def test_the_metrics_can_be_mounted() -> None:
    """As any ASGI application."""
    world = Metered()
    await world.ask("POST /login")
    transport = httpx.ASGITransport(world.metrics.asgi_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert dict(series_of(answer.text)) == world.series()


def test_what_several_processes_expose_is_kept_apart() -> None:
    """The same series of two workers stays two."""
    text = '# HELP a_total What.\n# TYPE a_total counter\na_total{x="1"} 2.0\n'
    assert dict(series_of(merge_expositions({"0": text, "1": text.replace("2.0", "5.0")}))) == {
        ("a_total", "0", "1"): 2,
        ("a_total", "1", "1"): 5,
    }


def test_a_registry_takes_one_limiter() -> None:
    """A second one is refused, for their numbers would mix."""
    world = Metered()
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusMetrics(world.limiter, world.bus, registry=world.metrics.registry)


def test_the_reference_lists_every_metric() -> None:
    """Name, kind, labels and meaning, and no other."""
    page = (ROOT / "docs/reference/metrics.md").read_text()
    listed = [line for line in page.splitlines() if line.startswith("| `sluicegate_")]
    assert listed == [
        f"| `{one.prometheus_name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in (*OF_EVENTS, *OF_STATE)
    ]
