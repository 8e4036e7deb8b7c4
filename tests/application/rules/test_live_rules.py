"""Lists, overrides, groups, unmatched endpoints, kill switches and swaps of rules, as the limiter applies them."""

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate import (
    InvalidInputError,
    MemoryStorage,
    RateLimitResult,
    Success,
    SyncTokenBucketAdapter,
)
from sluicegate.domain.events import (
    RateLimitListed,
    RateLimitRulesChanged,
    RateLimitRulesRefused,
    RateLimitSwitched,
)
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.infrastructure.rules_file.reader import parse_rules
from sluicegate.testing import FailingStorage, FakeClock, RecordingEventBus, RecordingLogger
from support.awaited_storage import AwaitedStorage
from support.world import NOON, World


@pytest.mark.parametrize("listening", [True, False])
class TestLists:
    """Allow and deny lists, on the long way and on the short one."""

    TEXT = """
        endpoints = { "GET /a" = "2/day per ip", "GET /u" = "2/day per user", "GET /off" = { rate = "2/day", enabled = false } }
        [allow]
        ip = ["10.0.0.0/8", { id = "192.0.2.0/24", until = 2026-11-24T12:05:00Z }]
        [deny]
        ip = ["10.6.6.0/24", { id = "198.51.100.7", until = 2026-11-24T12:05:00Z }]
        user = ["mallory"]
        """

    async def test_who_is_allowed_is_never_counted(self, listening: bool) -> None:
        """Everything passes, and the answer is a full bucket's."""
        world = World(self.TEXT, listening=listening)
        assert await world.passed(5) == 5
        assert await world.check() == RateLimitResult(True, 0.0, 2, 2, 0)
        assert await world.passed(5, identifier="11.0.0.1") == 2

    async def test_who_is_denied_is_denied_for_ever(self, listening: bool) -> None:
        """Nothing passes, on any endpoint, and no wait would help; the smaller network outranks the larger allowed one."""
        world = World(self.TEXT, listening=listening)
        for endpoint, limit in (("GET /a", 2), ("GET /off", 2), ("GET /nowhere", 0)):
            denied = RateLimitResult(False, math.inf, 0, limit, 0)
            assert [await world.check(endpoint, "10.6.6.6") for _ in range(3)] == [denied] * 3

    async def test_an_entry_ends_by_itself(self, listening: bool) -> None:
        """Until then the wait is told; from then on the rules count, without a reload."""
        world = World(self.TEXT, listening=listening)
        assert await world.check(identifier="198.51.100.7") == RateLimitResult(False, 300.0, 0, 2, 300)
        assert await world.passed(5, identifier="192.0.2.1") == 5
        world.now += timedelta(seconds=300)
        assert await world.passed(5, identifier="198.51.100.7") == 2
        assert await world.passed(5, identifier="192.0.2.1") == 2

    async def test_every_name_of_a_request_is_looked_up(self, listening: bool) -> None:
        """A denied user is denied where only addresses count; where lists disagree, a denial decides."""
        world = World(self.TEXT, listening=listening)
        assert not (await world.check(identifier={"ip": "11.0.0.1", "user": "mallory"})).allowed
        assert not (await world.check(identifier={"ip": "10.0.0.1", "user": "mallory"})).allowed
        assert not (await world.check(identifier={"user": "mallory", "ip": "10.0.0.1"})).allowed
        assert await world.passed(3, identifier={"ip": "10.0.0.1", "user": "bob"}) == 3

    async def test_one_text_stands_for_the_endpoints_scopes(self, listening: bool) -> None:
        """A user who is named like an allowed address is counted; the denied user is denied."""
        world = World(self.TEXT, listening=listening)
        assert await world.passed(5, "GET /u", "10.0.0.1") == 2
        assert not (await world.check("GET /u", "mallory")).allowed

    async def test_an_administrative_call_means_the_bucket(self, listening: bool) -> None:
        """A reset of somebody who is listed is done; a peek answers as the check would."""
        world = World(self.TEXT, listening=listening)
        assert await world.limiter.reset(endpoint="GET /a", identifier="10.6.6.6") == Success(None)
        peeked = await world.limiter.peek(endpoint="GET /a", identifier="10.6.6.6")
        assert isinstance(peeked, Success)
        assert not peeked.value.allowed

    async def test_wrong_arguments_stay_wrong(self, listening: bool) -> None:
        """Lists do not hide a mistake of the caller."""
        world = World(self.TEXT, listening=listening)
        for endpoint, identifier, cost in (("GET /a", "", 0), ("GET /a", "10.0.0.1", -1), ("", "10.0.0.1", 0)):
            with pytest.raises(InvalidInputError):
                await world.check(endpoint, identifier, cost)


async def test_a_list_tells_what_it_decided() -> None:
    """The event has the entry; no storage is asked, so no check is attempted."""
    world = World(TestLists.TEXT)
    await world.check(identifier="10.6.6.6")
    await world.check(identifier="10.0.0.1")
    events = [(event.allowed, event.listed, event.identifier, event.scope) for event in world.heard(RateLimitListed)]
    assert events == [(False, "10.6.6.0/24", "10.6.6.6", "ip"), (True, "10.0.0.0/8", "10.0.0.1", "ip")]
    assert len([event for event in world.bus.events if isinstance(event, RateLimitListed)]) == 2
    assert not [event for event in world.bus.events if "Check" in type(event).__name__]


async def test_lists_work_while_the_storage_is_down() -> None:
    """The denied stay out, whatever the failure policy is."""
    world = World(TestLists.TEXT, storage=FailingStorage())
    assert not (await world.check(identifier="10.6.6.6")).allowed
    assert (await world.check(identifier="11.0.0.1")).allowed


OVERRIDES = """
    [endpoints]
    "GET /a" = "search"
    [policies.search]
    rate = "2/day per ip"
    overrides = [
        { id = "10.0.0.0/8", rate = "5/day" },
        { id = "10.9.9.9", enabled = false },
        { id = "192.0.2.1", rate = "4/day", until = 2026-11-24T12:05:00Z },
    ]
    """


@pytest.mark.parametrize("listening", [True, False])
async def test_an_override_is_another_limit(listening: bool) -> None:
    """Each address of the network has a bucket of its own with the higher limit; others have the rule's."""
    world = World(OVERRIDES, listening=listening)
    assert await world.passed(7, identifier="10.0.0.1") == 5
    assert await world.passed(7, identifier="10.0.0.2") == 5
    assert await world.passed(7, identifier="11.0.0.1") == 2
    assert await world.passed(7, identifier="11.0.0.1") == 0


@pytest.mark.parametrize("listening", [True, False])
async def test_an_override_may_switch_a_rule_off(listening: bool) -> None:
    """The identifier is not counted, and the answer is a full bucket's."""
    world = World(OVERRIDES, listening=listening)
    assert await world.passed(9, identifier="10.9.9.9") == 9
    assert await world.check(identifier="10.9.9.9") == RateLimitResult(True, 0.0, 2, 2, 0)


@pytest.mark.parametrize("listening", [True, False])
async def test_an_override_ends_by_itself_and_the_bucket_keeps_its_tokens(listening: bool) -> None:
    """One of four is spent; at the end the three that are left are cut to the rule's two."""
    world = World(OVERRIDES, listening=listening)
    assert await world.passed(1, identifier="192.0.2.1") == 1
    world.now += timedelta(minutes=5)
    assert await world.passed(9, identifier="192.0.2.1") == 2


async def test_a_cost_is_measured_by_the_override() -> None:
    """What the rule could never hold, the partner's bucket can."""
    world = World(OVERRIDES)
    assert (await world.check(identifier="10.0.0.1", cost=4)).allowed
    assert (await world.check(identifier="11.0.0.1", cost=4)).retry_after == math.inf


async def test_endpoints_of_a_group_share_one_bucket() -> None:
    """What one endpoint takes, the other lacks; the endpoint's own rule counts beside it, and all are paid or none."""
    world = World(
        '[endpoints]\n"GET /a" = "2/day"\n[groups.all]\nrules = "3/day per ip"\nendpoints = ["GET /a", "GET /b"]\n'
    )
    assert await world.passed(9, "GET /a") == 2
    assert await world.passed(9, "GET /b") == 1
    assert await world.limiter.reset(endpoint="GET /b", identifier="10.0.0.1") == Success(None)
    assert await world.passed(9, "GET /b") == 3


async def test_the_groups_key_has_the_groups_name() -> None:
    """And not an endpoint's."""
    world = World('[groups.all]\nrules = "3/day per ip"\nendpoints = ["GET /a", "GET /b"]\n')
    endpoint_rules = world.limiter.rules.current().rules.find("GET /b")
    assert endpoint_rules is not None
    limit = endpoint_rules.limits[0]
    assert f"{limit.before}10.0.0.1{limit.after}" == "rate_limit:ip:10.0.0.1:all"


async def test_unmatched_is_the_endpoint_with_the_asterisk() -> None:
    """Both ways of writing mean the same, and both at once are a mistake."""
    assert parse_rules('unmatched = "3/day"\n') == parse_rules('[endpoints]\n"*" = "3/day"\n')
    with pytest.raises(InvalidInputError, match="unmatched: the endpoint '\\*' has rules already"):
        parse_rules('unmatched = "3/day"\n[endpoints]\n"*" = "3/day"\n')


async def test_a_global_rule_alone_leaves_addresses_to_the_lists() -> None:
    """One text is an address to the lists where the endpoint's rules count nobody."""
    for listening in (True, False):
        world = World('[endpoints]\n"GET /a" = "9/day per global"\n[deny]\nip = ["10.6.6.6"]\n', listening=listening)
        assert [(await world.check(identifier=one)).allowed for one in ("10.6.6.6", "10.0.0.1", "10.6.6.6")] == [
            False,
            True,
            False,
        ]


async def test_a_check_tells_of_lists_shadows_and_switches() -> None:
    """`check` answers as `is_allowed`, and names the rules that were asked; of those in shadow mode it says nothing."""
    world = World(
        '[policies]\nreal = "2/day"\ntrial = { rate = "1/day", shadow = true }\n[endpoints]\n"GET /a" = ["real", "trial"]\n'
        '[deny]\nip = ["10.6.6.6"]\n'
    )
    checked = await world.limiter.check(endpoint="GET /a", identifier="10.0.0.1")
    assert [rule.name for rule in checked.rules] == ["real"]
    assert checked.binding is not None
    assert (checked.binding.name, checked.result.remaining, checked.degraded) == ("real", 1, None)
    denied = await world.limiter.check(endpoint="GET /a", identifier="10.6.6.6")
    assert (denied.result.allowed, denied.rules) == (False, ())
    world.limiter.rules.switch_off()
    off = await world.limiter.check(endpoint="GET /a", identifier="10.6.6.6")
    assert (off.result.allowed, off.rules) == (True, ())


async def test_unmatched_endpoints_share_one_bucket() -> None:
    """Paths that no rule names count together per identifier; what a rule names does not; events name none of them."""
    world = World('unmatched = "3/day per ip"\n[endpoints]\n"GET /a" = "1/day"\n')
    assert await world.passed(2, "GET /a") == 1
    assert [(await world.check(f"GET /{n}")).allowed for n in range(5)] == [True] * 3 + [False] * 2
    assert (await world.check("GET /0", "10.0.0.2")).allowed
    assert {event.endpoint for event in world.bus.events} == {"GET /a", "*"}


class TestKillSwitch:
    """Switching rules off works at once, without the storage, and is loud."""

    TEXT = (
        '[policies]\nlogin = "1/day per ip"\ntotal = "3/day per global"\n[endpoints]\n"GET /a" = ["login", "total"]\n'
    )

    async def test_everything(self) -> None:
        """All rules and lists let pass until it is switched on again; the buckets are as they were."""
        world = World(f'{self.TEXT}[deny]\nip = ["10.6.6.6"]\n')
        assert await world.passed(2) == 1
        world.limiter.rules.switch_off(reason="incident 7")
        assert await world.passed(9) == 9
        assert (await world.check(identifier="10.6.6.6")).allowed
        assert await world.check() == RateLimitResult(True, 0.0, 1, 1, 0)
        world.limiter.rules.switch_on()
        assert await world.passed(9) == 0
        assert not (await world.check(identifier="10.6.6.6")).allowed

    async def test_one_rule(self) -> None:
        """The others count on."""
        world = World(self.TEXT)
        world.limiter.rules.switch_off("login")
        assert await world.passed(9) == 3
        world.limiter.rules.switch_on("login")
        assert await world.passed(9, identifier="10.0.0.2") == 0

    async def test_while_the_storage_is_down(self) -> None:
        """A storage that hangs is not asked."""
        storage = FailingStorage("hang")
        world = World(self.TEXT, storage=storage)
        world.limiter.rules.switch_off()
        assert await world.passed(9) == 9
        assert storage.calls == 0

    @pytest.mark.parametrize("listening", [True, False])
    async def test_it_ends_by_itself(self, listening: bool) -> None:
        """After its time the rules hold, and a line says so."""
        world = World(self.TEXT, listening=listening)
        world.limiter.rules.switch_off("login", for_seconds=60)
        world.limiter.rules.switch_off("total", for_seconds=120)
        assert await world.passed(9) == 9
        world.now += timedelta(seconds=60)
        assert await world.passed(9) == 1
        assert [switch.policies for switch in world.limiter.rules.switched_off] == [("total",)]
        world.now += timedelta(seconds=60)
        assert await world.passed(9, identifier="10.0.0.2") == 1
        assert world.limiter.rules.switched_off == ()
        assert [message for _, message, _ in world.logger.records].count("Rate limit rules hold again.") == 2

    async def test_what_is_left_counts_until_it_ends(self) -> None:
        """While one of two rules is off for a time, the other is asked the long way, which notices the end."""
        world = World(self.TEXT, listening=False)
        world.limiter.rules.switch_off("login", for_seconds=60)
        assert await world.passed(2) == 2
        world.now += timedelta(seconds=60)
        assert await world.check(identifier="10.0.0.2") == RateLimitResult(True, 0.0, 0, 1, 86400)
        assert not (await world.check(identifier="10.0.0.2")).allowed

    async def test_it_is_loud(self) -> None:
        """A warning and an event when it is thrown, warnings while nothing is limited, and both when it ends."""
        world = World(self.TEXT)
        world.limiter.rules.switch_off(for_seconds=60, reason="incident 7")
        await world.check()
        world.limiter.rules.switch_on()
        warnings = [message for level, message, _ in world.logger.records if level == "warning"]
        assert warnings == [
            "Rate limit rules are switched off.",
            "The kill switch is thrown: nothing is limited.",
            "Rate limit rules hold again.",
        ]
        events = [(e.off, e.policies, e.reason, e.until) for e in world.heard(RateLimitSwitched)]
        until = NOON + timedelta(seconds=60)
        assert events == [(True, (), "incident 7", until), (False, (), "incident 7", until)]

    async def test_in_the_file(self) -> None:
        """It holds from the start to its end; what is switched on by hand stays off by the file."""
        text = 'kill_switch = { until = 2026-11-24T12:05:00Z, reason = "incident" }\n' + self.TEXT
        world = World(text)
        assert await world.passed(9) == 9
        world.limiter.rules.switch_on()
        assert await world.passed(9) == 9
        world.now += timedelta(minutes=5)
        assert await world.passed(9) == 1
        assert [event.off for event in world.heard(RateLimitSwitched)] == [True, False]

    async def test_it_outlives_a_reload(self) -> None:
        """What an operator switched off by hand is off under new rules as well."""
        world = World(self.TEXT)
        world.limiter.rules.switch_off()
        world.limiter.rules.replace(parse_rules(self.TEXT.replace("3/day", "4/day")))
        assert await world.passed(9) == 9

    def test_wrong_arguments(self) -> None:
        """A name that no rule has and a time that is none are refused, and nothing is switched."""
        world = World(self.TEXT)
        with pytest.raises(InvalidInputError, match="policy='logn': no rule has this name; there are login, total"):
            world.limiter.rules.switch_off("logn")
        for wrong in (0, -1, math.nan, math.inf, "60", True):
            with pytest.raises(InvalidInputError, match="for_seconds"):
                world.limiter.rules.switch_off(for_seconds=wrong)
        assert world.limiter.rules.switched_off == ()


class TestReplacing:
    """Other rules come into force whole, and live buckets keep their tokens."""

    @pytest.mark.parametrize("listening", [True, False])
    @pytest.mark.parametrize(
        ("old", "new", "spent", "left"),
        [
            ("10/day", "20/day", 4, 6),  # a greater capacity adds no tokens
            ("20/day", "10/day", 4, 10),  # tokens above the new capacity are lost
            ("20/day", "10/day", 15, 5),  # what is left and fits is kept
            ("10/day", "10/hour", 4, 6),  # another rate changes what flows in, not what is there
            ("10/hour", "10/day", 4, 6),
            ("7/day burst 10", "13/minute burst 10", 3, 7),
        ],
    )
    async def test_tokens_survive(self, old: str, new: str, spent: int, left: int, listening: bool) -> None:
        """Higher and lower capacity and rate."""
        world = World(f'[endpoints]\n"GET /a" = "{old}"\n', listening=listening)
        assert await world.passed(spent) == spent
        world.limiter.rules.replace(parse_rules(f'[endpoints]\n"GET /a" = "{new}"\n'))
        assert await world.passed(30) == left

    async def test_a_bucket_takes_the_new_rate_with_its_first_paid_check(self) -> None:
        """Until then it goes on filling at the old rate: half an hour at 10 an hour, then half an hour at 60."""
        world = World('[endpoints]\n"GET /a" = "10/hour burst 100"\n')
        assert await world.passed(100) == 100
        world.limiter.rules.replace(parse_rules('[endpoints]\n"GET /a" = "60/hour burst 100"\n'))
        world.clock.advance(1800)
        assert (await world.check()).remaining == 4
        world.clock.advance(1800)
        assert await world.passed(100) == 34

    async def test_there_and_back(self) -> None:
        """A change that is taken back gives nobody a token."""
        world = World('[endpoints]\n"GET /a" = "10/day"\n')
        assert await world.passed(4) == 4
        for rate in ("100/day", "10/day", "1000/day burst 20", "10/day"):
            world.limiter.rules.replace(parse_rules(f'[endpoints]\n"GET /a" = "{rate}"\n'))
            await world.limiter.get_remaining(endpoint="GET /a", identifier="10.0.0.1")
        assert await world.passed(30) == 6

    async def test_versions_events_and_counts(self) -> None:
        """A change is told once, with both versions; the same rules again are no change."""
        world = World('[endpoints]\n"GET /a" = "10/day"\n')
        rules = world.limiter.rules
        first = rules.version
        second = rules.replace(parse_rules('[endpoints]\n"GET /a" = "9/day"\n'))
        assert second == rules.version != first
        rules.replace(parse_rules('# nine\n[endpoints]\n"GET /a" = "9/day"\n'))
        assert rules.changes == 1
        changed = [(event.rules_version, event.previous_version) for event in world.heard(RateLimitRulesChanged)]
        assert changed == [(second, first)]
        rules.refuse(InvalidInputError("rules.toml:3: no"))
        rules.refuse(InvalidInputError("rules.toml:3: no"))
        assert (rules.refusals, rules.last_error, rules.version) == (1, "rules.toml:3: no", second)
        assert [event.error for event in world.heard(RateLimitRulesRefused)] == ["rules.toml:3: no"]
        rules.replace(parse_rules('[endpoints]\n"GET /a" = "9/day"\n'))
        assert rules.last_error == ""
        assert ("info", "Rate limit rules are valid again.", {"rules_version": second}) in world.logger.records

    async def test_wrong_rules_change_nothing(self) -> None:
        """The error is the caller's, and the old rules stay."""
        world = World('[endpoints]\n"GET /a" = "2/day"\n')
        version = world.limiter.rules.version
        with pytest.raises(InvalidInputError):
            world.limiter.rules.replace({"GET /a": ()})
        assert world.limiter.rules.version == version
        assert await world.passed(9) == 2

    async def test_a_check_in_flight_ends_with_the_rules_it_began_with(self) -> None:
        """The answer describes the old limit, even if other rules came into force meanwhile."""
        gate = asyncio.Event()

        class SlowStorage(AwaitedStorage):
            async def take(self, requests: Any, /) -> Any:
                await gate.wait()
                return await super().take(requests)

        world = World('[endpoints]\n"GET /a" = "10/day"\n', storage=SlowStorage(), deadline_ms=30_000)
        checking = asyncio.create_task(world.check())
        await asyncio.sleep(0)
        world.limiter.rules.replace(parse_rules('[endpoints]\n"GET /a" = "3/day"\n'))
        gate.set()
        assert (await checking).limit == 10
        assert (await world.check()).limit == 3


TEXTS = st.sampled_from(
    [
        OVERRIDES,
        TestLists.TEXT,
        TestKillSwitch.TEXT,
        'unmatched = "3/day per ip"\n[groups.g]\nrules = "4/day"\nendpoints = ["GET /a", "GET /b"]\n',
        '[endpoints]\n"GET /a" = ["5/day", "2/hour"]\n"GET /{x}" = { rate = "3/day", cost = 2 }\n',
    ]
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["GET /a", "GET /b", "GET /u"]),
        st.sampled_from(["10.0.0.1", "10.6.6.6", "192.0.2.1", "198.51.100.7", "11.0.0.1", "mallory"]),
        st.integers(0, 3),
        st.integers(0, 200),
    ),
    max_size=25,
)


@given(st.lists(st.tuples(TEXTS, STEPS), min_size=1, max_size=3))
def test_a_listener_changes_no_answer_under_any_rules(
    story: list[tuple[str, list[tuple[str, str, int, int]]]],
) -> None:
    """With lists, overrides and swaps: a limiter that is listened to answers as one that is not."""
    wall = [NOON]
    clocks = FakeClock(), FakeClock()
    faces = [
        SyncTokenBucketAdapter(
            storage=MemoryStorage(clock=clock),
            rules=RuleBook({}),
            event_bus=bus,
            logger=RecordingLogger(),
            wall_clock=lambda: wall[0],
        )
        for clock, bus in zip(clocks, (None, RecordingEventBus()), strict=True)
    ]
    for text, steps in story:
        for face in faces:
            face.rules.replace(parse_rules(text))
        for endpoint, identifier, cost, seconds in steps:
            alone, heard = (face.is_allowed(endpoint=endpoint, identifier=identifier, cost=cost) for face in faces)
            assert alone == heard
            for clock in clocks:
                clock.advance(seconds)
            wall[0] += timedelta(seconds=seconds)
