"""Rules files that change while a limiter is at work."""

import asyncio
import gc
import os
import threading
import time
import weakref
from pathlib import Path

import pytest

from sluicegate import MemoryStorage, RateLimitRule, Success, TokenBucketAdapter
from sluicegate.container import build_rate_limit, watch_rules
from sluicegate.domain.events import RateLimitRulesChanged, RateLimitRulesRefused
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.infrastructure.settings import Settings, read_settings
from sluicegate.testing import RecordingEventBus, RecordingLogger

RELOADS = 200 if os.environ.get("SLUICEGATE_LONG") else 60
SECONDS = 10 if os.environ.get("SLUICEGATE_LONG") else 3
PATIENCE_S = 30

BROKEN = (
    "[endpoints\n",
    '[endpoints]\n"GET /a" = "0/minute"\n',
    '[endpoints]\n"GET /a" = "5/minute"\n"GET /a" = "6/minute"\n',
    '[endpoints]\n"GET /a" = { max_tokens = 5, refill_rate = nan }\n',
    '[endpoints]\n"GET /a" = { rat = "5/minute" }\n',
    "",
    '[endpoints]\n"GET /a" = ["5/min',
)


def rules_text(n: int) -> str:
    """Return rules whose two endpoints and two rules all carry the number: a mixture would show."""
    limit = 1000 + n
    return f'[endpoints]\n"GET /a" = ["{limit}/day per ip", "{limit}/day per global"]\n"GET /b" = "{limit}/day"\n'


def put(path: Path, text: str) -> None:
    """Replace a file as a careful writer does."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


async def until(holds: object) -> None:
    """Wait for another thread."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, "nothing happened"
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("listening", [True, False])
async def test_reloads_under_load(tmp_path: Path, listening: bool) -> None:  # noqa: PLR0915 - one story
    """Many reloads, every third one invalid: no failed request, no mixed rule, the version right after each."""
    path = tmp_path / "rules.toml"
    put(path, rules_text(0))
    bus = RecordingEventBus()
    settings = Settings(rules_path=str(path), rules_watch="off")
    limiter = build_rate_limit(settings, event_bus=bus if listening else None, logger=RecordingLogger())
    watch = watch_rules(limiter, path, quiet_ms=5)
    watch.start()
    rules = limiter.rules
    stop = False
    checks = 0

    async def load(client: int) -> None:
        nonlocal checks
        while not stop:
            endpoint_rules = rules.current().rules.find("GET /a")
            assert endpoint_rules is not None
            assert len({limit.rule.max_tokens for limit in endpoint_rules.limits}) == 1
            for endpoint in ("GET /a", "GET /b"):
                before = rules.changes
                result = await limiter.is_allowed(endpoint=endpoint, identifier=f"10.0.0.{client}")
                assert isinstance(result, Success)
                assert result.value.limit in {1000 + n for n in range(RELOADS + 1)}
                if rules.changes == before:
                    assert result.value.limit == next(iter(rules.book["GET /b"])).max_tokens
                checks += 1
            await asyncio.sleep(0.001)

    clients = [asyncio.create_task(load(n)) for n in range(8)]
    began = time.monotonic()
    good, refused = 0, 0
    version = rules.version
    for n in range(1, RELOADS + 1):
        if n % 3 == 0:
            put(path, BROKEN[n // 3 % len(BROKEN)])
            refused += 1
            await until(lambda wanted=refused: rules.refusals == wanted)
            assert rules.version == version
            assert rules.last_error.startswith(f"{path}:")
        else:
            put(path, rules_text(n))
            good += 1
            version = parse_rules(rules_text(n)).version
            await until(lambda wanted=good: rules.changes == wanted)
            assert rules.version == version
        await asyncio.sleep(max(0.0, began + n * SECONDS / RELOADS - time.monotonic()))
    took_s = time.monotonic() - began
    stop = True
    await asyncio.gather(*clients)
    watch.stop()
    print(f"{RELOADS} reloads in {took_s:.1f} s, {refused} of them invalid, {checks} checks")  # noqa: T201 - for -s
    assert (rules.changes, rules.refusals) == (good, refused)
    assert limiter.failures == {}
    assert checks > RELOADS
    if listening:
        changed = [event.rules_version for event in bus.events if isinstance(event, RateLimitRulesChanged)]
        assert len(changed) == good
        assert len(set(changed)) == good
        assert len([event for event in bus.events if isinstance(event, RateLimitRulesRefused)]) == refused


async def test_a_refused_file_is_told_and_the_last_good_one_stays(tmp_path: Path) -> None:
    """A line names file, line and field; when the file is good again, that is told too."""
    path = tmp_path / "rules.toml"
    put(path, rules_text(0))
    logger = RecordingLogger()
    limiter = build_rate_limit(Settings(rules_path=str(path)), logger=logger)
    put(path, '[endpoints]\n"GET /a" = "many"\n')
    await until(lambda: limiter.rules.refusals == 1)
    (error,) = [context["error"] for level, _, context in logger.records if level == "error"]
    assert error == f"{path}:2: endpoints.\"GET /a\": no policy is named 'many', and it is no rate"
    result = await limiter.is_allowed(endpoint="GET /b", identifier="10.0.0.1")
    assert isinstance(result, Success)
    assert result.value.limit == 1000
    put(path, rules_text(0))
    await until(lambda: any(message == "Rate limit rules are valid again." for _, message, _ in logger.records))


async def test_a_file_that_becomes_writable_for_anybody_is_refused(tmp_path: Path) -> None:
    """Its rights are part of what is checked, at every reload; a warning tells of a group that may write."""
    path = tmp_path / "rules.toml"
    put(path, rules_text(0))
    path.chmod(0o664)
    logger = RecordingLogger()
    limiter = build_rate_limit(Settings(rules_path=str(path)), logger=logger)
    assert [message for level, message, _ in logger.records] == [f"{path}: its group may write to it (mode 0664)"]
    path.chmod(0o666)
    await until(lambda: "anybody may write to it" in limiter.rules.last_error)
    path.chmod(0o644)
    await until(lambda: limiter.rules.last_error == "")


async def test_rules_from_code_are_merged_with_every_version(tmp_path: Path) -> None:
    """A clash refuses the file, as any other mistake in it would."""
    path = tmp_path / "rules.toml"
    put(path, rules_text(0))
    code = {"GET /c": "7/day", "GET /b": RateLimitRule(5, 5, "ip")}
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={}, logger=RecordingLogger())
    watch = watch_rules(limiter, path, code_rules=code, poll_seconds=0.05)
    watch.start()
    await until(lambda: limiter.rules.refusals == 1)
    assert "the rules file says ip-1000-86400s and the code says ip-5-60s" in limiter.rules.last_error
    put(path, rules_text(0).replace('"GET /b" = "1000/day"', '"GET /b" = { rules = "1000/day", replaces_code = true }'))
    await until(lambda: limiter.rules.changes == 1)
    assert [rules[0].max_tokens for rules in map(limiter.rules.book.get, ("GET /a", "GET /b", "GET /c"))] == [
        1000,
        1000,
        7,
    ]
    watch.stop()


async def test_the_watch_ends_with_the_limiter(tmp_path: Path) -> None:
    """A limiter that is not used any more is collected, and the watch's thread ends."""
    path = tmp_path / "rules.toml"
    put(path, rules_text(0))
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={}, logger=RecordingLogger())
    before = set(threading.enumerate())
    watch_rules(limiter, path, poll_seconds=0.05).start()
    (thread,) = set(threading.enumerate()) - before
    gone = weakref.ref(limiter)
    del limiter
    # Not at the first attempt: the watch's thread may be reading the file just now, and hold what it calls.
    await until(lambda: gc.collect() >= 0 and gone() is None)
    await until(lambda: not thread.is_alive())


@pytest.mark.parametrize("how", ["poll", "off"])
async def test_the_watch_can_be_set(tmp_path: Path, how: str) -> None:
    """`SLUICEGATE_RULES_WATCH=poll` looks every two seconds; with `off` a change is not noticed."""
    path = tmp_path / "rules.toml"
    put(path, rules_text(0))
    settings = read_settings({"SLUICEGATE_RULES": str(path), "SLUICEGATE_RULES_WATCH": how})
    limiter = build_rate_limit(settings, logger=RecordingLogger())
    put(path, rules_text(1))
    if how == "poll":
        await until(lambda: limiter.rules.changes == 1)
    else:
        await asyncio.sleep(0.2)
        assert limiter.rules.changes == 0
