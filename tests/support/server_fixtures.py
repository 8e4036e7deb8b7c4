"""Fixtures that start real servers once for the whole session. `tests/conftest.py` offers them to all tests."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from support.redis_servers import ClusterSet, MissingServerError, RedisServer, SentinelSet, redis_6, redis_7

S = TypeVar("S", RedisServer, SentinelSet, ClusterSet)


@pytest.fixture(scope="session")
def redis_7_server() -> Iterator[RedisServer]:
    """Run Debian's Redis 7.0."""
    yield from run_or_skip(lambda: RedisServer(binary=redis_7()))


@pytest.fixture(scope="session")
def redis_6_server() -> Iterator[RedisServer]:
    """Run Redis 6.2."""
    yield from run_or_skip(lambda: RedisServer(binary=redis_6()))


@pytest.fixture
def binary(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return what finds a server's binary, for tests that start servers of their own; skip where there is none."""
    find: Callable[[], str] = request.param
    try:
        find()
    except MissingServerError as error:
        pytest.skip(str(error))
    return find


@pytest.fixture(scope="session")
def sentinel_set() -> Iterator[SentinelSet]:
    """Run a master, two replicas and three sentinels."""
    yield from run_or_skip(SentinelSet)


@pytest.fixture(scope="session")
def cluster_set() -> Iterator[ClusterSet]:
    """Run three masters and three replicas."""
    yield from run_or_skip(ClusterSet)


@pytest.fixture
def redis_server(redis_7_server: RedisServer) -> RedisServer:
    """Return Redis 7.0, empty."""
    redis_7_server.client().flushall()
    return redis_7_server


def run_or_skip(start: Callable[[], S]) -> Iterator[S]:
    """Yield running servers to a fixture, and stop them; skip the test where a program is missing."""
    try:
        servers = start()
    except MissingServerError as error:
        pytest.skip(str(error))
    with servers:
        yield servers
