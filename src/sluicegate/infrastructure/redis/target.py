"""Where Redis is and how to log in, read from a URL or from a client of redis-py."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
from redis import Redis as PlainRedis
from redis import RedisCluster as PlainRedisCluster
from redis import connection as plain
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.infrastructure.redis.connection import Connector, DirectConnector, SentinelConnector

_SENTINEL_PORT = 26379
_REDIS_PORT = 6379

# The options of a user's client that are used. All others are about pools, retries and decoding.
_INHERITED = frozenset({
    "host", "port", "path", "db", "username", "password", "credential_provider", "client_name",
    "socket_keepalive", "socket_keepalive_options", "socket_type", "redis_connect_func",
})  # fmt: skip

# A sync client's connections would block the event loop; these are their async counterparts.
_ASYNC_CLASS: dict[type[Any], type[Any]] = {
    plain.Connection: Connection,
    plain.SSLConnection: SSLConnection,
    plain.UnixDomainSocketConnection: UnixDomainSocketConnection,
}

_LEAST_VERSION = (5, 2)

_TOPOLOGY = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}


class RedisTarget:
    """Where Redis is, and how to log in. Holds nothing that belongs to an event loop.

    Args:
        topology: `single`, `sentinel` or `cluster`.
        connection_class: redis-py's class of connection.
        options: Its arguments.
        hosts: The sentinels, or the Cluster's first nodes; empty for a single server.
        service: The name under which the sentinels know the master.
        sentinel_options: Arguments of the connections to the sentinels.

    Raises:
        InvalidInputError: If the version of redis-py that is installed is not supported.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of an address
        self,
        topology: str,
        connection_class: type[Any],
        options: Mapping[str, Any],
        hosts: Sequence[tuple[str, int]] = (),
        service: str = "",
        sentinel_options: Mapping[str, Any] | None = None,
    ) -> None:
        version = tuple(int(part) for part in redis.__version__.split(".")[:2])
        if version < _LEAST_VERSION:
            raise InvalidInputError(
                f"redis-py {redis.__version__} is installed, expected 5.2 or later: pip install --upgrade 'sluicegate[redis]'"
            )
        self.topology = topology
        self.hosts = tuple(hosts)
        self._class = connection_class
        self._options = {k: v for k, v in options.items() if k in _INHERITED or k.startswith("ssl_")}
        self._service = service
        self._sentinel_options = {
            k: v for k, v in (sentinel_options or {}).items() if k in _INHERITED or k.startswith("ssl_") or k == "ssl"
        }

    def connector(self, address: tuple[str, int] | None = None) -> Connector:
        """Return a connector for the running event loop.

        Args:
            address: A node of the Cluster; None: the server or master that the target names.
        """
        options = self._options
        if address is not None:
            options = {**options, "host": address[0], "port": address[1]}
        direct = DirectConnector(self._class, options)
        if self.topology == "sentinel":
            sentinel_options = dict(self._sentinel_options)
            sentinel_class = SSLConnection if sentinel_options.pop("ssl", False) else Connection
            return SentinelConnector(
                self.hosts, self._service, DirectConnector(sentinel_class, sentinel_options), direct
            )
        return direct

    def __repr__(self) -> str:
        tls = "rediss" if issubclass(self._class, SSLConnection) else "redis"
        db = f"/{self._options['db']}" if self._options.get("db") else ""
        if self.hosts:
            hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
            return f"{tls}+{self.topology}://{hosts}{'/' if self._service else ''}{self._service}{db}"
        if "path" in self._options:
            return f"unix://{self._options['path']}"
        return f"{tls}://{self._options.get('host', 'localhost')}:{self._options.get('port', _REDIS_PORT)}{db}"


def target_of_url(url: str) -> RedisTarget:
    """Read a URL.

    Args:
        url: `redis://`, `rediss://` (TLS, verified), `unix://`, `redis+sentinel://host:port,host:port/service/db`,
            `redis+cluster://host:port,host:port`, or the same with `valkey`. User and password are percent-encoded. Query
            arguments are redis-py's (`db`, `ssl_ca_certs`, `client_name`, …) and, for sentinels that want a login of
            their own, `sentinel_username` and `sentinel_password`.

    Raises:
        InvalidInputError: If it cannot be read. The message repeats no part of the URL that could be a password.
    """
    if not isinstance(url, str):
        raise InvalidTypeError(f"url: expected a string, not {type(url).__name__}")
    scheme, separator, rest = url.partition("://")
    kind, _, tail = scheme.partition("+")
    kind = {"valkey": "redis", "valkeys": "rediss"}.get(kind, kind)
    if not separator or kind not in {"redis", "rediss", "unix"} or tail not in _TOPOLOGY or (kind == "unix" and tail):
        shown = scheme[:32] if separator else ""  # without :// all of it may be a password
        raise InvalidInputError(
            f"url: begins with {shown!r}, expected redis, rediss, unix, redis+sentinel, redis+cluster or the same with"
            " valkey, followed by ://"
        )
    try:
        return _target_of_hosts(kind, _TOPOLOGY[tail], rest) if tail else _target_of_one(kind, rest)
    except InvalidInputError:
        raise
    except ValueError:
        pass  # its message, and so the context of an error that is raised here, may quote a part of the password
    raise InvalidInputError(
        "url: cannot be read; percent-encode special characters of user and password, and check port and arguments"
    )


def target_of_client(client: object) -> RedisTarget:
    """Read where a client of redis-py connects to. The client itself is neither used nor closed.

    Raises:
        InvalidTypeError: If it is not such a client, or its connections are of an unknown class.
    """
    _require_server(client)
    if isinstance(client, RedisCluster | PlainRedisCluster):
        manager: Any = client.nodes_manager
        options: dict[str, Any] = dict(manager.connection_kwargs)
        # The client may send READONLY when it connects, to read from replicas; writes must not do that.
        options.pop("redis_connect_func", None)
        tls = bool(options.pop("ssl", False)) or any(name.startswith("ssl_") for name in options)
        hosts = [(str(node.host), int(node.port)) for node in manager.startup_nodes.values()]
        return RedisTarget("cluster", SSLConnection if tls else Connection, options, hosts)
    if not isinstance(client, Redis | PlainRedis):
        raise InvalidTypeError(
            f"redis_client={type(client).__name__}: expected a client of redis-py (Redis or RedisCluster); for any other, give"
            " its address: RedisStorage.from_url(...)"
        )
    pool: Any = getattr(client, "connection_pool", None)
    if not any(isinstance(pool, pool_class) for pool_class in (ConnectionPool, plain.ConnectionPool)):
        raise InvalidTypeError(f"redis_client={type(client).__name__}: has no pool of redis-py, as if it were a mock")
    options = pool.connection_kwargs
    if hasattr(pool, "sentinel_manager"):
        sentinels: Any = pool.sentinel_manager
        kwargs = [sentinel.connection_pool.connection_kwargs for sentinel in sentinels.sentinels]
        hosts = [(str(kw.get("host", "localhost")), int(kw.get("port", _SENTINEL_PORT))) for kw in kwargs]
        tls = issubclass(pool.connection_class, SSLConnection | plain.SSLConnection)
        return RedisTarget(
            "sentinel",
            SSLConnection if tls else Connection,
            options,
            hosts,
            pool.service_name,
            sentinels.sentinel_kwargs,
        )
    if isinstance(client, PlainRedis) and options.get("redis_connect_func"):
        raise InvalidTypeError(
            "redis_client: has a redis_connect_func, which is for connections that block; give an async client, or a URL"
        )
    connection_class: type[Any] = pool.connection_class
    connection_class = _ASYNC_CLASS.get(connection_class, connection_class)
    if not issubclass(connection_class, AbstractConnection):
        raise InvalidTypeError(
            f"redis_client: its connections are of the class {connection_class.__name__}, not known here; give an async client,"
            " or a URL"
        )
    return RedisTarget("single", connection_class, options)


def _require_server(client: object) -> None:
    """Refuse clients that are no clients of a server, as those of fakeredis.

    Raises:
        InvalidTypeError: If it is one.
    """
    pool = getattr(client, "connection_pool", None)
    classes = [*type(client).__mro__, *getattr(getattr(pool, "connection_class", None), "__mro__", ())]
    if any(cls.__module__.partition(".")[0] == "fakeredis" for cls in classes):
        raise InvalidTypeError(
            f"redis_client={type(client).__name__}: fakeredis has no server to connect to; in tests use MemoryStorage(), which"
            " decides alike, or a redis-server of your own"
        )


def _target_of_one(kind: str, rest: str) -> RedisTarget:
    """Parse a URL with one host. What redis-py would pass over in silence is refused: it may be the rest of a password."""
    split = urlsplit(f"{kind}://{rest}")
    parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query))
    path = "" if kind == "unix" else split.path.strip("/")
    if split.fragment or "#" in rest or (path and not path.isdigit()):
        raise ValueError
    options: dict[str, Any] = dict(parse_url(f"{kind}://{rest}"))
    return RedisTarget("single", options.pop("connection_class", Connection), options)


def _target_of_hosts(kind: str, topology: str, rest: str) -> RedisTarget:
    """Parse a URL with several hosts, which no URL parser does: login and arguments with redis-py's parser, hosts here."""
    # Some versions of Python refuse a list of hosts with an IPv6 address, so the list is cut out first.
    hosts_end = next((at for at, char in enumerate(rest) if char in "/?#"), len(rest))
    split = urlsplit(f"//hosts{rest[hosts_end:]}")
    login, at, hosts_text = rest[:hosts_end].rpartition("@")
    query = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
    sentinel_options: dict[str, Any] = {
        name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query
    }
    path = [unquote(part) for part in split.path.split("/") if part]
    service = ""
    if topology == "sentinel":
        if not path:
            raise InvalidInputError("url: names no service; expected redis+sentinel://host:port,host:port/service")
        service = path.pop(0)
    if len(path) > 1 or (path and not path[0].isdigit()):
        raise InvalidInputError("url: the path after the hosts is not a database number")
    if path:
        query.setdefault("db", path[0])
    options: dict[str, Any] = dict(parse_url(f"{kind}://{login}{at}unused:1?{urlencode(query)}"))
    connection_class = options.pop("connection_class", Connection)
    del options["host"], options["port"]
    default_port = _SENTINEL_PORT if topology == "sentinel" else _REDIS_PORT
    hosts = [_host(text, default_port) for text in hosts_text.split(",")]
    if topology == "sentinel" and connection_class is SSLConnection:
        sentinel_options["ssl"] = True
        sentinel_options.update({k: v for k, v in options.items() if k.startswith("ssl_")})
    return RedisTarget(topology, connection_class, options, hosts, service, sentinel_options)


def _host(text: str, default_port: int) -> tuple[str, int]:
    parsed = urlsplit(f"//{text}")
    if not parsed.hostname:
        raise InvalidInputError("url: a host is missing")
    return parsed.hostname, parsed.port or default_port
