"""URLs and clients, read into addresses and logins."""

from unittest.mock import MagicMock

import fakeredis
import pytest
import redis
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.connection import (
    URL_QUERY_ARGUMENT_PARSERS,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)

from sluicegate import InvalidInputError, InvalidTypeError, RedisStorage, SyncRedisStorage
from sluicegate.infrastructure.redis.target import target_of_client, target_of_url


@pytest.mark.parametrize(
    ("url", "shown", "options"),
    [
        ("redis://", "redis://localhost:6379", {}),
        ("redis://h:7/3", "redis://h:7/3", {"host": "h", "port": 7, "db": 3}),
        ("valkey://h", "redis://h:6379", {"host": "h"}),
        ("redis://u:p%40ss@h", "redis://h:6379", {"username": "u", "password": "p@ss", "host": "h"}),
        ("redis://[::1]:7", "redis://::1:7", {"host": "::1", "port": 7}),
        ("rediss://h?ssl_ca_certs=/ca.pem", "rediss://h:6379", {"host": "h", "ssl_ca_certs": "/ca.pem"}),
        ("valkeys://h", "rediss://h:6379", {"host": "h"}),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock", {"path": "/run/redis.sock", "db": 2}),
        ("redis://h?client_name=limits&socket_timeout=9", "redis://h:6379", {"host": "h", "client_name": "limits"}),
    ],
)
def test_a_url_of_one_server(url: str, shown: str, options: dict[str, object]) -> None:
    """Host, login, database and TLS are taken; timeouts are not, because the deadline is ours."""
    target = target_of_url(url)
    assert repr(target) == shown
    assert target.topology == "single"
    assert target._options == options


def test_a_url_of_sentinels() -> None:
    """Several hosts, a service, a database, and a login of the sentinels' own."""
    target = target_of_url(
        "rediss+sentinel://u:s%2Fecret@a:1,[::2]:2,c/limits/4?sentinel_username=w&sentinel_password=x&ssl_ca_certs=/ca"
    )
    assert target.topology == "sentinel"
    assert target.hosts == (("a", 1), ("::2", 2), ("c", 26379))
    assert target._service == "limits"
    assert target._options == {"username": "u", "password": "s/ecret", "db": 4, "ssl_ca_certs": "/ca"}
    assert target._sentinel_options == {"username": "w", "password": "x", "ssl": True, "ssl_ca_certs": "/ca"}
    assert target._class is SSLConnection


def test_a_url_of_a_cluster() -> None:
    """Several first nodes, one login."""
    target = target_of_url("valkey+cluster://:pw@a,b:7")
    assert (target.topology, target.hosts) == ("cluster", (("a", 6379), ("b", 7)))
    assert target._options == {"password": "pw"}
    assert RedisStorage(redis_client=target).traits.hash_tags
    assert not RedisStorage.from_url("redis://").traits.hash_tags


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{SECRET}@h",
        f"memory+cluster://u:{SECRET}@h",
        f"unix+cluster://u:{SECRET}@h",
        f"redis://u:{SECRET}#x@h:port",
        f"redis://u:{SECRET}@h:99999999",
        f"redis+sentinel://u:{SECRET}@h",
        f"redis+sentinel://u:{SECRET}@h,/service",
        f"redis+cluster://u:{SECRET}@h/one",
        f"redis+cluster://u:{SECRET}@h/1/2",
        f"redis://u:{SECRET}@h?db=x",
        f"redis://:p@{SECRET}/word@h",
        f"redis://{SECRET}#ss@h:6379",
        f"redis://{SECRET}?ss@h:6379",
        f"redis://:{SECRET}:x@h:{SECRET}",
        f"redis://:{SECRET}?x@h",
        pytest.param(
            f"rediss://u:{SECRET}@h?ssl_min_version=x",
            marks=pytest.mark.skipif(
                "ssl_min_version" not in URL_QUERY_ARGUMENT_PARSERS, reason="this redis-py does not look at it"
            ),
        ),
        SECRET,
        "",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    """The message says what is wrong and repeats nothing that could be secret."""
    with pytest.raises(InvalidInputError, match="url: ") as caught:
        target_of_url(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    assert SECRET not in repr(caught.value) + repr(caught.value.args)


def test_a_url_that_is_no_string_is_refused() -> None:
    """A `None` from a missing setting gets a clear error."""
    with pytest.raises(InvalidTypeError, match="url: expected a string"):
        RedisStorage.from_url(None)  # type: ignore[arg-type]


def test_no_password_shows_in_a_repr() -> None:
    """A storage may be printed into any log."""
    for url in (
        f"redis://user:{SECRET}@h",
        f"redis+sentinel://user:{SECRET}@h/s?sentinel_password={SECRET}",
        f"rediss+cluster://user:{SECRET}@h",
        f"unix:///s?password={SECRET}",
    ):
        for storage in (RedisStorage.from_url(url), SyncRedisStorage.from_url(url)):
            assert SECRET not in repr(storage)
            assert "user" not in repr(storage)


async def test_a_client_lends_its_address_and_login_and_nothing_else() -> None:
    """Pools, retries, timeouts, decoding and protocol are the client's own affair."""
    client = Redis(
        host="h", port=7, db=3, username="u", password="p", socket_timeout=9, decode_responses=True, protocol=3,
        health_check_interval=5, client_name="n",
    )  # fmt: skip
    target = target_of_client(client)
    assert repr(target) == "redis://h:7/3"
    expected = {"host": "h", "port": 7, "db": 3, "username": "u", "password": "p", "client_name": "n"}
    assert expected.items() <= target._options.items()
    assert (
        not {"socket_timeout", "decode_responses", "protocol", "retry", "health_check_interval"}
        & target._options.keys()
    )


async def test_clients_of_every_kind_are_read() -> None:
    """Async and plain, TLS, Unix socket, Sentinel and Cluster."""
    assert target_of_client(Redis(ssl=True, ssl_ca_certs="/ca"))._class is SSLConnection
    assert target_of_client(redis.Redis(ssl=True))._class is SSLConnection
    assert target_of_client(redis.Redis(host="h"))._class is Connection
    assert target_of_client(redis.Redis(unix_socket_path="/s"))._class is UnixDomainSocketConnection
    assert repr(target_of_client(Redis(unix_socket_path="/s"))) == "unix:///s"
    for sentinel in (Sentinel([("a", 1), ("b", 2)], password="p"), redis.Sentinel([("a", 1), ("b", 2)], password="p")):
        target = target_of_client(sentinel.master_for("limits"))  # type: ignore[no-untyped-call]
        assert (target.topology, target.hosts, target._service) == ("sentinel", (("a", 1), ("b", 2)), "limits")
        assert target._options["password"] == "p"
    target = target_of_client(RedisCluster(host="h", port=7, password="p"))
    assert (target.topology, target.hosts, target._options["password"]) == ("cluster", (("h", 7),), "p")
    assert "redis_connect_func" not in target._options


def test_a_client_of_fakeredis_is_refused_with_what_to_do_instead() -> None:
    """It has no server that could run the script, and every check would fail."""
    for client in (fakeredis.FakeRedis(), fakeredis.FakeAsyncRedis()):
        with pytest.raises(InvalidTypeError, match="fakeredis has no server .* use MemoryStorage"):
            RedisStorage(redis_client=client)
        with pytest.raises(InvalidTypeError, match="fakeredis has no server .* use MemoryStorage"):
            SyncRedisStorage(redis_client=client)


def test_clients_that_cannot_be_followed_are_refused() -> None:
    """A mock, a pool of connections of another kind, and a hook that would block the event loop."""
    pool = redis.ConnectionPool(connection_class=type("Odd", (redis.Connection,), {}))
    for client, message in (
        (MagicMock(spec=Redis), "as if it were a mock"),
        (MagicMock(spec=Redis()), "as if it were a mock"),
        (redis.Redis(connection_pool=pool), "class Odd, not known here; give an async client, or a URL"),
        (redis.Redis(redis_connect_func=print), "redis_connect_func"),
        (MagicMock(), "expected a client of redis-py .* RedisStorage.from_url"),
    ):
        with pytest.raises(InvalidTypeError, match=message):
            RedisStorage(redis_client=client)


@pytest.mark.parametrize("version", ["4.6.0", "5.1.1", "5.0.0rc1"])
def test_a_version_of_redis_py_that_is_not_supported_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """At construction, not by failing every check."""
    monkeypatch.setattr(redis, "__version__", version)
    for build in (lambda: RedisStorage.from_url("redis://"), lambda: SyncRedisStorage(redis_client=Redis())):
        with pytest.raises(InvalidInputError, match=f"redis-py {version} is installed, expected 5.2 or later"):
            build()


@pytest.mark.parametrize("client", [None, "redis://localhost", object(), 5])
def test_what_is_no_client_is_refused(client: object) -> None:
    """The error names the argument and what was expected."""
    with pytest.raises(InvalidTypeError, match="redis_client=.*expected a client of redis-py"):
        RedisStorage(redis_client=client)


@pytest.mark.parametrize("deadline_ms", [0, -1, 60_001, 5.0, True, "50"])
def test_a_wrong_deadline_is_refused(deadline_ms: object) -> None:
    """The error names field and value."""
    with pytest.raises(InvalidInputError, match="deadline_ms="):
        RedisStorage.from_url("redis://", deadline_ms=deadline_ms)  # type: ignore[arg-type]
