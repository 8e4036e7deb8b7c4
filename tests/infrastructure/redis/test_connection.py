"""Ways in: TLS that is verified, a Unix socket, a database, a client's login, and the least that a user may do."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from sluicegate import InvalidInputError, RateLimitRule, RedisStorage, StorageError
from sluicegate.infrastructure.settings import Settings
from sluicegate.infrastructure.storage_of_settings import build_storage
from support.bucket_requests import bucket_request
from support.redis_servers import RedisServer, free_port, redis_6, redis_7

DAILY = RateLimitRule.per_day(5)

LEAST_ACL = ("on", ">secret", "resetkeys", "~rate_limit:*", "-@all",
             "+evalsha", "+eval", "+time", "+mget", "+set", "+del")  # fmt: skip
"""What docs/how-to/use-redis.md tells operators to grant."""


async def five_of(storage: RedisStorage) -> list[bool]:
    """Take seven tokens of a bucket of five."""
    one = bucket_request(DAILY)
    return [(await storage.take([one])).allowed for _ in range(7)]


FIVE = [True] * 5 + [False] * 2


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a key and a certificate for 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl in PATH")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=limits",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def tls_port(certificates: Path) -> Iterator[int]:
    """Run a server that speaks TLS beside plain."""
    port = free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no",
               "--tls-cert-file", str(certificates / "cert.pem"), "--tls-key-file", str(certificates / "key.pem"),
               "--tls-ca-cert-file", str(certificates / "cert.pem")]  # fmt: skip
    with RedisServer(*options):
        yield port


async def test_tls_with_a_certificate_that_is_trusted(certificates: Path, tls_port: int) -> None:
    """`rediss://` checks the certificate against the authority that the URL names."""
    url = f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs={certificates / 'cert.pem'}"
    async with RedisStorage.from_url(url, deadline_ms=10_000) as storage:
        assert await five_of(storage) == FIVE


async def test_tls_carries_many_checks_at_a_time(certificates: Path, tls_port: int) -> None:
    """Replies that arrive in several pieces of TLS, or several in one, are each read whole."""
    url = f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs={certificates / 'cert.pem'}"
    async with RedisStorage.from_url(url, deadline_ms=10_000) as storage:
        for count in (1, 40, 3_000):
            verdicts = await asyncio.gather(*[storage.take([bucket_request(DAILY)]) for _ in range(count)])
            assert all(verdict.allowed for verdict in verdicts)


async def test_tls_with_an_unknown_certificate_is_refused(tls_port: int) -> None:
    """Verification is on unless it is turned off: an unknown certificate is a failed connection."""
    async with RedisStorage.from_url(f"rediss://127.0.0.1:{tls_port}", deadline_ms=10_000) as storage:
        with pytest.raises(StorageError) as caught:
            await storage.take([bucket_request(DAILY)])
        assert caught.value.reason == "connection"


async def test_a_plain_connection_to_a_tls_port_is_answered_in_time(tls_port: int) -> None:
    """A mistake in the URL costs no more than any other failure."""
    async with RedisStorage.from_url(f"redis://127.0.0.1:{tls_port}", deadline_ms=200) as storage:
        for _ in range(5):
            with pytest.raises(StorageError):
                await storage.take([bucket_request(DAILY)])


async def test_a_unix_socket(tmp_path: Path) -> None:
    """`unix://` with a database of its own."""
    path = tmp_path / "redis.sock"
    with RedisServer("--unixsocket", str(path)) as server:
        async with RedisStorage.from_url(f"unix://{path}?db=3", deadline_ms=10_000) as storage:
            assert await five_of(storage) == FIVE
        assert server.client(db=3).dbsize() == 1
        assert server.client().dbsize() == 0


async def test_a_database_number(redis_server: RedisServer) -> None:
    """The database stands in the path."""
    async with RedisStorage.from_url(f"{redis_server.url}/5", deadline_ms=10_000) as storage:
        assert await five_of(storage) == FIVE
    assert redis_server.client(db=5).dbsize() == 1


async def test_a_client_that_the_user_has(redis_server: RedisServer) -> None:
    """Its login and database are used; it stays open and is not used itself."""
    client = Redis(port=redis_server.port, db=6, decode_responses=True, protocol=3, max_connections=1)
    async with RedisStorage(redis_client=client, deadline_ms=10_000) as storage:
        assert await five_of(storage) == FIVE
    assert client.connection_pool._available_connections == []  # it was never used
    assert await client.dbsize() == 1
    await client.aclose()


@pytest.mark.parametrize("binary", [redis_7, redis_6], indirect=True)
async def test_the_least_acl_is_enough(binary: Any) -> None:
    """A user with only the permissions that the documentation names can take, peek, refund and reset."""
    with RedisServer(binary=binary()) as server:
        client: Any = server.client()
        client.execute_command("ACL", "SETUSER", "limits", *LEAST_ACL)
        async with RedisStorage.from_url(
            f"redis://limits:secret@127.0.0.1:{server.port}", deadline_ms=10_000
        ) as storage:
            assert await five_of(storage) == FIVE
            client.script_flush()
            one = bucket_request(DAILY, cost=5)
            assert (await storage.take([one])).allowed
            assert (await storage.peek([one]))[0].level < DAILY.spec.units_per_token
            assert (await storage.refund([one]))[0].level == DAILY.spec.capacity
            await storage.reset([one])
            with pytest.raises(StorageError) as caught:
                await storage.take([bucket_request(DAILY, key="session:of-somebody-else")])
            assert caught.value.reason == "no_permission"
            assert await five_of(storage) == FIVE
        assert client.execute_command("ACL", "LOG")[1:] == []


@pytest.mark.parametrize("binary", [redis_7, redis_6], indirect=True)
async def test_the_least_acl_is_enough_for_a_client_with_a_name(binary: Any) -> None:
    """A name is worth having, and no reason to fail every check; who may set it, has it."""
    with RedisServer(binary=binary()) as server:
        client: Any = server.client()
        client.execute_command("ACL", "SETUSER", "limits", *LEAST_ACL)
        url = f"redis://limits:secret@127.0.0.1:{server.port}?client_name=frontend"
        user = Redis(port=server.port, username="limits", password="secret", client_name="frontend")
        for storage in (
            RedisStorage.from_url(url, deadline_ms=10_000),
            RedisStorage(redis_client=user, deadline_ms=10_000),
        ):
            async with storage:
                assert await five_of(storage) == FIVE
        client.execute_command("ACL", "SETUSER", "limits", "+client|setname" if binary is redis_7 else "+client")
        async with RedisStorage.from_url(url, deadline_ms=10_000) as storage:
            assert await five_of(storage) == FIVE
            assert "frontend" in {each["name"] for each in client.client_list()}


@pytest.mark.parametrize(
    ("missing", "named"), [("+evalsha", "+evalsha is missing"), ("+mget", "NOPERM"), ("+set", "NOPERM")]
)
async def test_a_permission_that_is_missing_is_named_without_the_key(missing: str, named: str) -> None:
    """The message helps, and repeats nothing of the command."""
    with RedisServer() as server:
        server.client().execute_command("ACL", "SETUSER", "limits", *[rule for rule in LEAST_ACL if rule != missing])
        url = f"redis://limits:secret@127.0.0.1:{server.port}"
        async with RedisStorage.from_url(url, deadline_ms=10_000) as storage:
            with pytest.raises(StorageError) as caught:
                await storage.take([bucket_request(DAILY)])
            assert named in str(caught.value)
            assert "rate_limit" not in str(caught.value)


@pytest.mark.parametrize("missing", ["+evalsha", "+mget", "+set"])
async def test_a_permission_that_is_missing_is_named(missing: str) -> None:
    """An incomplete ACL is a storage error with its own reason, not a silent allow."""
    with RedisServer() as server:
        acl = [rule for rule in LEAST_ACL if rule != missing]
        server.client().execute_command("ACL", "SETUSER", "limits", *acl)
        async with RedisStorage.from_url(
            f"redis://limits:secret@127.0.0.1:{server.port}", deadline_ms=10_000
        ) as storage:
            with pytest.raises(StorageError) as caught:
                await storage.take([bucket_request(DAILY)])
            assert caught.value.reason == "no_permission"


async def test_the_settings_name_the_storage(redis_server: RedisServer) -> None:
    """`SLUICEGATE_STORAGE_URL` and `SLUICEGATE_DEADLINE_MS` become a storage."""
    storage = build_storage(Settings(storage_url=redis_server.url, deadline_ms=10_000))
    assert isinstance(storage, RedisStorage)
    assert repr(storage) == f"RedisStorage({redis_server.url}, deadline_ms=10000)"
    assert await five_of(storage) == FIVE
    await storage.aclose()
    with pytest.raises(InvalidInputError, match="SLUICEGATE_STORAGE_URL: url: names no service"):
        build_storage(Settings(storage_url="redis+sentinel://h"))
