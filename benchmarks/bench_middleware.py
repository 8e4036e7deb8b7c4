"""What limiting adds to a request through FastAPI."""

import gc
import statistics
from collections.abc import Awaitable, Callable

from fastapi import FastAPI

import web_peers as peers
from bench_memory import clients
from bench_redis import binary
from report import Section, at_most, compare
from rounds import Contestant, alternate, together
from sizes import Size
from support.redis_servers import RedisServer

_BUILD: tuple[tuple[str, Callable[[str], FastAPI]], ...] = (
    ("sluicegate, middleware, quota headers", peers.ours),
    ("sluicegate, middleware, no headers", peers.ours_without_headers),
    ("slowapi, SlowAPIASGIMiddleware, quota headers", peers.slowapi),
    ("slowapi, SlowAPIASGIMiddleware, no headers", peers.slowapi_without_headers),
    ("slowapi, SlowAPIMiddleware (BaseHTTPMiddleware), quota headers", peers.slowapi_older),
    ("slowapi, decorator, no headers", peers.slowapi_decorator),
    ("fastapi-limiter, dependency, no headers", peers.fastapi_limiter),
    ("throttled-py, decorator", peers.throttled_py),
)


async def run(size: Size) -> Section:
    """Measure."""
    section = Section("Through a web framework")
    with RedisServer(binary=binary()) as server:
        await _compare("in memory", "", 1, size, section, parts=10)
        await _compare("on Redis", server.url, 1, size, section, parts=2)
        await _compare("on Redis", server.url, 50, size, section, parts=2)
    return section


async def _compare(  # noqa: PLR0913 - what differs between the tables
    where: str, url: str, callers: int, size: Size, section: Section, *, parts: int
) -> None:
    # The difference to be measured is small. Short rounds are close to each other in time, and other load disturbs few of them.
    rounds, requests = size.rounds * parts, size.requests // parts
    names = clients(100)

    def work(app: FastAPI) -> Callable[[int], Awaitable[float]]:
        return together(peers.request_to(app), names, callers, [])

    limited = [Contestant(name, work(build(url))) for name, build in _BUILD]
    bare = Contestant("the application alone", work(peers.alone()), peer=False)
    limited[0].ours = limited[1].ours = True
    gc.collect()
    gc.freeze()  # else the collection before each round takes longer than the round
    await alternate([*limited, bare], rounds=rounds, checks=requests)
    gc.unfreeze()
    how = "one request after the other" if callers == 1 else f"{callers} requests at a time"
    conditions = (
        f"FastAPI in one process, one endpoint with a path parameter, 100 clients, {how}, {rounds} rounds of"
        f" {requests:,}; `added` is what the limiter adds to the application alone: the median of the rounds' differences,"
        " and their middle half. Of slowapi's two middlewares the ASGI one, which its documentation calls the faster, is the"
        " yardstick."
    )
    extra = (
        ("added us", lambda one: f"{_added(one, bare):.1f}"),
        ("middle half", lambda one: "{:.1f} to {:.1f}".format(*_middle_half(one, bare))),
    )
    section.tables.append(compare(f"a request, {where}, {how}", conditions, [*limited, bare], extra))
    if callers == 1 and url:
        return  # all wait for the network, which no limiter makes faster
    for ours, theirs, most, what in (
        (limited[0], limited[2], 0.08, "both with quota headers"),
        (limited[1], limited[3], 0.1, "both without"),
        (limited[0], limited[3], 0.1, "ours with quota headers, theirs without"),
    ):
        share = _added(ours, bare) / _added(theirs, bare)
        section.goals.append(at_most(f"middleware, {where}, {how}", most, share, unit=f"of what slowapi adds, {what}"))


def _added(one: Contestant, bare: Contestant) -> float:
    return statistics.median(_differences(one, bare))


def _middle_half(one: Contestant, bare: Contestant) -> tuple[float, float]:
    low, _, high = statistics.quantiles(_differences(one, bare), n=4)
    return low, high


def _differences(one: Contestant, bare: Contestant) -> list[float]:
    return [mine - theirs for mine, theirs in zip(one.figures, bare.figures, strict=True)]
