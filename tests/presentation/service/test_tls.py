"""TLS on every port of the service, asked by real clients."""

import asyncio
import logging
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from sluicegate.domain.errors import StorageError
from sluicegate.presentation.cli.main import main
from sluicegate.presentation.service import certificate
from sluicegate.presentation.service.admin.client import AdminClient, ClientTls
from sluicegate.presentation.service.certificate import Certificate
from sluicegate.presentation.service.settings import TlsFiles
from sluicegate.testing import FakeClock
from support.certificates import Authority
from support.rate_limit_service import ANYWHERE, OK, RateLimitClient, ServiceWorld
from support.serving import Serving

CONFIG = "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 1000}}]"
RULES = '[endpoints]\n"GET /a" = "1000/day"\n'
TOKEN = "correct-horse-battery"
CHECK = {"endpoint": "GET /a", "identifier": "x"}
ONCE = Retry(NoBackoff(), 0)
PORTS = {"grpc": ANYWHERE, "http": ANYWHERE, "resp": ANYWHERE, "admin": ANYWHERE, "admin_token": TOKEN}
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that certifies the server."""
    return Authority(tmp_path_factory.mktemp("tls") / "servers")


@pytest.fixture(scope="module")
def of_clients(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that certifies clients."""
    return Authority(tmp_path_factory.mktemp("tls") / "clients")


@asynccontextmanager
async def served(tls: TlsFiles, **service: Any) -> AsyncIterator[dict[str, int]]:
    """Run a service with TLS on all ports, and yield these."""
    world = ServiceWorld(CONFIG, rules=RULES, service={**PORTS, "tls": tls, **service})
    await world.service.start()
    try:
        yield {name: int(address.rpartition(":")[2]) for name, address in world.service.addresses.items()}
    finally:
        await world.service.stop()


async def ask_grpc(port: int, authority: Authority, own: Pair | None = None) -> bool:
    """Return whether a request over gRPC is answered."""
    key, chain = (own[1].read_bytes(), own[0].read_bytes()) if own else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes(), key, chain)
    client = RateLimitClient(f"localhost:{port}", credentials)
    async with client:
        try:
            return (await client.ask("edge", {"user": "x"})).overall_code == OK
        except grpc.aio.AioRpcError:
            return False


async def ask_http(port: int, authority: Authority, own: Pair | None = None) -> bool:
    """Return whether a request over HTTP is answered."""
    async with httpx.AsyncClient(base_url=f"https://localhost:{port}", verify=authority.client(own)) as client:
        try:
            answer = await client.post("/v1/check", json=CHECK)
        except (httpx.TransportError, ssl.SSLError):
            return False
        return bool(answer.json()["allowed"])


async def ask_resp(port: int, authority: Authority, own: Pair | None = None) -> bool:
    """Return whether a command is answered."""
    files = {"ssl_certfile": str(own[0]), "ssl_keyfile": str(own[1])} if own else {}
    client = redis.asyncio.Redis(port=port, ssl=True, ssl_ca_certs=str(authority.ca), retry=ONCE, **files)
    async with client:
        try:
            return bool((await client.execute_command("CL.THROTTLE", "k", 99, 1, 60))[0] == 0)
        except (redis.ConnectionError, ssl.SSLError, OSError):
            return False


async def ask_admin(port: int, authority: Authority, own: Pair | None = None) -> bool:
    """Return whether an administrative call is answered."""
    tls = ClientTls(str(authority.ca), *([str(path) for path in own] if own else []))
    try:
        client = AdminClient(f"https://localhost:{port}", TOKEN, tls=tls)
        status, _ = await asyncio.to_thread(client.call, "GET", "/v1/state")
    except StorageError:
        return False
    return status == 200


ASKING = {"grpc": ask_grpc, "http": ask_http, "resp": ask_resp, "admin": ask_admin}


async def answered(ports: dict[str, int], authority: Authority, own: Pair | None = None) -> list[str]:
    """Return the protocols over which a client is answered."""
    return [name for name, ask in ASKING.items() if await ask(ports[name], authority, own)]


async def test_every_port_speaks_tls(authority: Authority, of_clients: Authority) -> None:
    """With clients that trust its authority; nobody who does not is answered, and nobody in clear."""
    async with served(authority.files()) as ports:
        assert await answered(ports, authority) == list(ASKING)
        assert await answered(ports, of_clients) == []
        assert await answered(ports, authority, of_clients.issue("unasked")) == list(ASKING)
        async with RateLimitClient(f"127.0.0.1:{ports['grpc']}") as client:
            with pytest.raises(grpc.aio.AioRpcError):
                await client.ask("edge", {"user": "x"})
        async with httpx.AsyncClient() as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(f"http://127.0.0.1:{ports['http']}/healthz")
        async with redis.asyncio.Redis(port=ports["resp"], retry=ONCE, socket_timeout=5) as client:
            with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
                await client.ping()


async def test_a_protocol_may_speak_in_clear(authority: Authority) -> None:
    """Where others need that, such as a probe."""
    async with served(authority.files(), tls_except=("http",)) as ports:
        assert await answered(ports, authority) == ["grpc", "resp", "admin"]
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{ports['http']}/healthz")).status_code == 200


async def test_clients_must_have_a_certificate_where_an_authority_is_given(
    authority: Authority, of_clients: Authority
) -> None:
    """Of that authority."""
    async with served(authority.files(client_ca=of_clients.ca)) as ports:
        assert await answered(ports, authority) == []
        assert await answered(ports, authority, authority.issue("stranger")) == []
        assert await answered(ports, authority, of_clients.issue("known")) == list(ASKING)


async def test_a_renewed_certificate_holds_without_a_restart(
    tmp_path: Path,
    authority: Authority,
    of_clients: Authority,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On every port, and with it other authorities of clients; of two files of which one is replaced the old ones hold."""
    monkeypatch.setattr(certificate, "_LOOK_US", 0)
    files = TlsFiles(*[str(tmp_path / name) for name in ("cert.pem", "key.pem", "clients.pem")])

    def put(pair: Pair, ca: Path) -> None:
        for source, path in zip((*pair, ca), (files.certificate, files.key, files.client_ca), strict=True):
            shutil.copy(source, path)

    put(authority.issue("first"), of_clients.ca)
    client = of_clients.issue("client")
    async with served(files) as ports:
        assert await answered(ports, authority, client) == list(ASKING)
        second = authority.issue("second")
        shutil.copy(second[0], files.certificate)
        assert await answered(ports, authority, client) == list(ASKING)
        assert "The certificate was not replaced: --tls-key:" in caplog.text
        put(second, authority.ca)
        assert await answered(ports, authority, client) == []
        own = authority.issue("own")
        assert await answered(ports, authority, own) == list(ASKING)
        put(of_clients.issue("elsewhere"), authority.ca)
        assert await answered(ports, of_clients, own) == list(ASKING)
        assert await answered(ports, authority, own) == []


def test_its_files_are_looked_at_once_a_second(tmp_path: Path, authority: Authority) -> None:
    """However many connections begin."""
    first, second = authority.issue("a"), authority.issue("b")
    files = TlsFiles(str(tmp_path / "cert"), str(tmp_path / "key"))
    clock = FakeClock()
    for pair, holds in ((first, False), (second, True)):
        for source, path in zip(pair, (files.certificate, files.key), strict=True):
            shutil.copy(source, path)
        if not holds:
            held = Certificate(files, clock)
    assert not held.follow()
    clock.advance(1)
    assert held.follow()
    assert held.pem.certificate == second[0].read_bytes()
    clock.advance(1)
    assert not held.follow()
    Path(files.key).unlink()
    clock.advance(1)
    assert not held.follow()
    assert held.pem.key == second[1].read_bytes()


@pytest.mark.parametrize("protocol", ["grpc", "http", "resp"])
async def test_tls_before_1_2_is_refused(protocol: str, authority: Authority) -> None:
    """By gRPC as by the others."""
    async with served(authority.files()) as ports:
        told: dict[str, bool] = {}
        for version in ("tls1_1", "tls1_2", "tls1_3"):
            command = [
                "openssl",
                "s_client",
                "-connect",
                f"127.0.0.1:{ports[protocol]}",
                f"-{version}",
                "-alpn",
                "h2,http/1.1",
            ]
            if version == "tls1_1":
                command += ["-cipher", "DEFAULT@SECLEVEL=0"]
            done = await asyncio.to_thread(
                subprocess.run, command, input=b"", capture_output=True, timeout=20, check=False
            )
            told[version] = b"Cipher is (NONE)" not in done.stdout
        assert told == {"tls1_1": False, "tls1_2": True, "tls1_3": True}


async def test_redis_cli_is_a_client(authority: Authority) -> None:
    """With `--tls`, where it was built with it."""
    async with served(authority.files()) as ports:
        command = ["redis-cli", "--tls", "--cacert", str(authority.ca), "-h", "localhost", "-p", str(ports["resp"])]
        if shutil.which("redis-cli") is None:
            pytest.skip("there is no redis-cli")
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, "cl.throttle", "k", "15", "30", "60"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if "Unrecognized option" in done.stderr:
            pytest.skip("redis-cli has no TLS")
        assert done.stdout.split() == ["0", "16", "15", "-1", "2"]


async def test_pipelines_are_carried_whole(authority: Authority) -> None:
    """However TLS cuts them."""
    async with (
        served(authority.files()) as ports,
        redis.asyncio.Redis(port=ports["resp"], ssl=True, ssl_ca_certs=str(authority.ca)) as client,
    ):
        pipeline = client.pipeline(transaction=False)
        for n in range(2000):
            pipeline.execute_command("CL.THROTTLE", f"k{n % 7}", 99, 1, 86_400)
        answers = await pipeline.execute()
        assert sum(answer[0] == 0 for answer in answers) == 700


def test_wrong_files_are_named(tmp_path: Path, authority: Authority, of_clients: Authority, capsys: Any) -> None:
    """On one line with the option, and exit status 2."""
    server, key = map(str, authority.issue("named"))
    other = str(of_clients.issue("other")[1])
    text, locked = tmp_path / "text", tmp_path / "locked"
    text.write_text("nothing")
    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    cases: list[tuple[list[str], str]] = [
        (["--tls-certificate", server], "--tls-certificate needs --tls-key"),
        (["--tls-key", key], "--tls-key needs --tls-certificate"),
        (["--tls-client-ca", server], "--tls-client-ca needs --tls-certificate"),
        (["--tls-except", "http"], "--tls-except needs --tls-certificate"),
        (["--tls-certificate", server, "--tls-key", key, "--tls-except", "ftp"], "--tls-except='ftp': expected one of"),
        (["--tls-certificate", "/none", "--tls-key", key], "--tls-certificate: /none cannot be read: No such file"),
        (["--tls-certificate", server, "--tls-key", str(tmp_path)], f"--tls-key: {tmp_path} cannot be read: Is a dir"),
        (
            ["--tls-certificate", str(text), "--tls-key", key],
            f"--tls-certificate: {text}: expected a certificate in PEM",
        ),
        (["--tls-certificate", server, "--tls-key", str(text)], f"--tls-key: {text}: expected a private key in PEM"),
        (["--tls-certificate", server, "--tls-key", other], f"--tls-key: {other} is not the key of the certificate"),
        (["--tls-certificate", server, "--tls-key", str(locked)], f"--tls-key: {locked} is encrypted"),
        (["--tls-certificate", str(broken), "--tls-key", key], f"--tls-certificate: {broken} and {key} cannot be used"),
        (
            ["--tls-certificate", server, "--tls-key", key, "--tls-client-ca", str(text)],
            f"--tls-client-ca: {text}: exp",
        ),
        (
            ["--tls-certificate", server, "--tls-key", key, "--tls-client-ca", str(broken)],
            f"--tls-client-ca: {broken} can",
        ),
    ]
    capsys.readouterr()
    free = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    for workers in ([], ["--workers", "2", "--separate-memory"]):
        for options, message in cases[-9:] if workers else cases:
            assert main(["serve", "--rules", str(rules), *free, *workers, *options]) == 2
            told = capsys.readouterr().err.strip()
            assert message in told
            assert "\n" not in told


def test_a_certificate_that_clients_refuse_is_a_warning(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """It is served all the same: some clients do not look."""
    with caplog.at_level(logging.WARNING):
        Certificate(TlsFiles(*map(str, authority.issue("fine"))))
        assert caplog.text == ""
        Certificate(TlsFiles(*map(str, authority.issue("old", days=-1)), client_ca=str(authority.ca)))
        assert "old.pem has expired; clients refuse it" in caplog.text


def test_workers_and_the_command_line_speak_it(
    tmp_path: Path, authority: Authority, of_clients: Authority, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a certificate for each side; the start-up line says so, and it ends as quickly as without."""
    files = authority.files("workers", client_ca=of_clients.ca)
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    options = ("--rules", str(tmp_path / "rules.toml"), "--grpc", "off", "--http", "127.0.0.1:0", "--workers", "2")
    more = ("--separate-memory", "--admin", "127.0.0.1:0", "--admin-token-file", str(tmp_path / "token"))
    tls = ("--tls-certificate", files.certificate, "--tls-key", files.key, "--tls-client-ca", files.client_ca)
    own = of_clients.issue("operator")
    with Serving(*options, *more, *tls, "--leave-seconds", "0.1", log=tmp_path / "log") as serving:
        assert serving.line.endswith("; TLS on all ports, clients need a certificate\n")
        with httpx.Client(base_url=f"https://localhost:{serving.port('http')}", verify=authority.client(own)) as client:
            assert client.post("/v1/check", json=CHECK).json()["allowed"]
            server = f"https://localhost:{serving.port('admin')}"
            command = ["reset", "GET /a", "x", "--server", server, "--token-file", str(tmp_path / "token")]
            assert main(command) == 2
            assert "no answer from" in capsys.readouterr().err
            variables = {"SERVER_CA": authority.ca, "CLIENT_CERTIFICATE": own[0], "CLIENT_KEY": own[1]}
            for name, path in variables.items():
                monkeypatch.setenv(f"SLUICEGATE_{name}", str(path))
            assert main(command) == 0
            for name in ("SERVER_CA", "CLIENT_CERTIFICATE"):
                monkeypatch.setenv(f"SLUICEGATE_{name}", "/none")
                assert main(command) == 2
                assert f"SLUICEGATE_{name}" in capsys.readouterr().err
                monkeypatch.setenv(f"SLUICEGATE_{name}", str(variables[name]))
            assert serving.stop() == 0
