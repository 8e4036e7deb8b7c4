"""Checks on buckets in the process."""

import memory_peers as peers
from report import Section, at_least, at_most, compare
from rounds import Check, Contestant, PlainCheck, alternate, one_by_one, one_by_one_plain, ratio
from sizes import Size
from sluicegate import InlineEventBus, MemoryStorage, RateLimitCheckDenied, RateLimitEvent, TokenBucketAdapter

_MILLION = 10**6
_PLENTY = 10**5  # three times as many at this rate are still counted in ticks of a microsecond, as usual rules are
_WORK = (
    ("allowed, one client", 1, _MILLION, _MILLION),
    ("allowed, 10,000 clients whose buckets are in use", 10_000, _MILLION, 1),
    ("allowed, 10,000 clients whose buckets are full each time", 10_000, _MILLION, _MILLION * 100),
    ("denied, 10,000 clients", 10_000, 1, 1),
)


def clients(count: int) -> list[str]:
    """Return so many addresses."""
    return [f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(count)]


async def run(size: Size) -> Section:
    """Measure."""
    section = Section("In memory")
    for title, count, burst, per_hour in _WORK:
        names = clients(count)
        waiting = [
            _async("sluicegate, await", peers.ours(burst, per_hour), names, ours=True),
            _plain("sluicegate, sync", peers.ours_plain(burst, per_hour), names, ours=True),
            _async("limits, await (fixed window)", peers.limits_async(burst, per_hour), names),
            _async("throttled-py, await (token bucket)", peers.throttled_async(burst, per_hour), names),
            _async("pyrate-limiter, await (token bucket)", peers.pyrate_async(burst, per_hour), names),
            _plain("limits, sync (fixed window)", peers.limits_plain(burst, per_hour), names),
            _plain("throttled-py, sync (token bucket)", peers.throttled_plain(burst, per_hour), names),
            _plain("falconry token-bucket, sync", peers.falconry_plain(burst, per_hour), names),
            Contestant("a coroutine that does nothing", one_by_one(_nothing, names), peer=False),
        ]
        # Limiters that refuse everything must not have been asked for the first time within the round.
        await alternate(waiting, rounds=size.rounds, checks=size.memory_checks)
        conditions = (
            f"One caller, one check after the other; {size.rounds} rounds of {size.memory_checks:,} checks each."
        )
        section.tables.append(compare(title, conditions, waiting))
        if count == 1:
            ours, sync, limits, throttled, _, _, _, falconry, _ = waiting
            work = "memory, `await is_allowed`"
            section.goals += [
                at_least(work, 5, ratio(throttled, ours), than="throttled-py's token bucket (async)"),
                at_least(work, 3, ratio(limits, ours), than="limits (async)"),
                at_least(work, 0.5, ratio(falconry, ours), than="falconry's token-bucket (sync)"),
                at_least("memory, sync face", 1, ratio(falconry, sync), than="falconry's token-bucket"),
            ]
    await _ways_of_ours(size, section)
    return section


async def _ways_of_ours(size: Size, section: Section) -> None:
    """Time what costs more than the plain check: several rules, a cost of the caller's, a listener."""
    names = clients(10_000)
    unheard = InlineEventBus()
    unheard.subscribe(RateLimitCheckDenied, lambda _: None)
    heard = InlineEventBus()
    heard.subscribe(RateLimitEvent, lambda _: None)
    one = _async("one rule", peers.ours(_PLENTY, 1), names, ours=True)
    three = _async("three rules in one check", peers.ours(_PLENTY, 1, rules=3), names, ours=True)
    others = [
        _async("one rule, with a cost of the caller's", _with_cost(), names, ours=True),
        _async("one rule, a listener to denials only", _listening(unheard), names, ours=True),
        _async("one rule, a listener to all events", _listening(heard), names, ours=True),
        _async("limits, three checks (fixed window)", _thrice(peers.limits_async(_MILLION, 1)), names),
        _async("throttled-py, three checks", _thrice(peers.throttled_async(_MILLION, 1)), names),
    ]
    await alternate([one, three, *others], rounds=size.rounds, checks=size.memory_checks)
    conditions = "Allowed, 10,000 clients, as above; the peers check three rules one after the other."
    section.tables.append(compare("what costs more", conditions, [one, three, *others]))
    section.goals.append(at_most("3 rules per check, memory", 1.5, ratio(three, one), unit="times the time of 1 rule"))


def _listening(bus: InlineEventBus) -> Check:
    limiter = TokenBucketAdapter(
        storage=MemoryStorage(), rules={peers.ENDPOINT: peers.rule(_MILLION, 1)}, event_bus=bus
    )
    return lambda client: limiter.is_allowed(endpoint=peers.ENDPOINT, identifier=client)


def _with_cost() -> Check:
    limiter = TokenBucketAdapter(storage=MemoryStorage(), rules={peers.ENDPOINT: peers.rule(_PLENTY, 1)})
    return lambda client: limiter.is_allowed(endpoint=peers.ENDPOINT, identifier=client, cost=2)


def _thrice(check: Check) -> Check:
    async def three(client: str) -> None:
        await check("a" + client)
        await check("b" + client)
        await check("c" + client)

    return three


async def _nothing(_: str) -> None:
    pass


def _async(name: str, check: Check, names: list[str], *, ours: bool = False) -> Contestant:
    return Contestant(name, one_by_one(check, names), ours=ours)


def _plain(name: str, check: PlainCheck, names: list[str], *, ours: bool = False) -> Contestant:
    return Contestant(name, one_by_one_plain(check, names), ours=ours)
