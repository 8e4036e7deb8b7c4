"""The service beside handlers that do nothing, in alternating rounds: gRPC, HTTP and the Redis protocol.

    benchmarks/.venv/bin/python benchmarks/bench_service.py [--rounds N] [--requests N] [--only gRPC|HTTP|Redis]

The load comes from h2load (Debian's nghttp2-client), redis-benchmark and this process, on the second core; each server is a
process of its own on the first. A round counts answers in a second of the wall clock, and the server's own processor time for
each: the latter tells what one core can do, whoever else uses it.
"""

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sluicegate.presentation.service.envoy.messages import RateLimitRequest, RateLimitResponse

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CONFIG = "domain: edge\ndescriptors: [{key: user, rate_limit: {unit: second, requests_per_unit: 1000000}}]\n"
RULES = '[endpoints]\n"GET /a" = "1000000/second"\n'
CHECK = b'{"endpoint":"GET /a","identifier":"192.0.2.1"}'
CONNECTIONS = 4
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Round:
    """What one round gave: answers a second, microseconds of the server's processor for each, and milliseconds at p50 and p99."""

    rate: float
    cpu_us: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


@dataclass(slots=True)
class Server:
    """A server that is measured.

    Args:
        name: What the table calls it.
        command: Starts it; it says on its first line where it listens.
        load: Sends it a number of requests, at so many a second (0: as many as it takes), and returns latencies in microseconds.
    """

    name: str
    command: list[str]
    load: Callable[[str, int, int], list[int]]
    rounds: list[Round] = field(default_factory=list)
    half: list[Round] = field(default_factory=list)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--only", choices=["gRPC", "HTTP", "Redis"], default="", help="one protocol")
    parser.add_argument("--serve", choices=["grpc", "http"])
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(_serve_grpc() if arguments.serve == "grpc" else _serve_http())
        return
    for program, protocol in (("h2load", "gRPC"), ("redis-benchmark", "Redis")):
        if arguments.only in {"", protocol} and shutil.which(program) is None:
            raise SystemExit(f"{program} is not in PATH")
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as folder:
        for title, servers in _pairs(Path(folder)):
            if arguments.only in title:
                _compare(title, servers, arguments.rounds, arguments.requests)


def _pairs(folder: Path) -> Iterator[tuple[str, list[Server]]]:
    for name, text in (("edge.yaml", CONFIG), ("rules.toml", RULES)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    message = _request().SerializeToString()
    (folder / "grpc").write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    serve = [str(Path(sys.executable).with_name("sluicegate")), "serve", "--leave-seconds", "0"]
    empty = [sys.executable, __file__, "--serve"]

    def grpc_load(address: str, count: int, rate: int) -> list[int]:
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        return _h2load(
            f"http://{address}{METHOD}", folder / "grpc", [f"-c{CONNECTIONS}", "-m16", *headers], count, rate
        )

    def http_load(address: str, count: int, rate: int) -> list[int]:
        return asyncio.run(_ask_over_http(address, count, rate))

    yield (
        "gRPC, 4 connections with 16 requests each",
        [
            Server("an empty grpc.aio handler", [*empty, "grpc"], grpc_load),
            Server(
                "sluicegate, ShouldRateLimit",
                [
                    *serve,
                    "--ratelimit-config",
                    str(folder / "edge.yaml"),
                    "--grpc",
                    "0",
                    "--http",
                    "off",
                    "--headers",
                    "none",
                ],
                grpc_load,
            ),
        ],
    )
    yield (
        "HTTP/1.1, 16 connections",
        [
            Server("an empty Starlette handler", [*empty, "http"], http_load),
            Server(
                "sluicegate, POST /v1/check",
                [*serve, "--rules", str(folder / "rules.toml"), "--grpc", "off", "--http", "0"],
                http_load,
            ),
        ],
    )
    yield (
        "the Redis protocol, 10 connections, pipelines of 32",
        [
            Server(
                f"sluicegate, {command.split()[0]}",
                [*serve, "--grpc", "off", "--http", "off", "--resp", "0"],
                _redis_load(command),
            )
            for command in ("PING", "CL.THROTTLE key:__rand_int__ 1000000 1000000 1")
        ],
    )


def _compare(title: str, servers: list[Server], rounds: int, requests: int) -> None:
    with _running(servers) as running:
        for server, _, address in running:
            server.load(address, requests // 10, 0)  # warms up
        for number in range(rounds):
            for server, process, address in running[number % len(running) :] + running[: number % len(running)]:
                server.rounds.append(_measure(server, process.pid, address, requests, 0))
        half = int(statistics.median(one.rate for one in servers[-1].rounds) / 2)
        for _ in range(rounds if half and "Redis" not in title else 0):
            for server, process, address in running:
                server.half.append(_measure(server, process.pid, address, half * 2, half))
    print(f"\n{title}; {rounds} rounds of {requests:,} requests, the median (and the range) of each\n")
    print("| | answers a second | processor us each | of the first | p99 ms at half load |")
    print("|---|---:|---:|---:|---:|")
    first = statistics.median(one.cpu_us for one in servers[0].rounds)
    for server in servers:
        rates, costs = [one.rate for one in server.rounds], [one.cpu_us for one in server.rounds]
        share = first / statistics.median(costs)
        late = statistics.median(one.p99_ms for one in server.half) if server.half else None
        print(
            f"| {server.name} | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
            f" | {statistics.median(costs):.1f} ({min(costs):.1f} to {max(costs):.1f}) | {share:.0%}"
            f" | {'' if late is None else f'{late:.1f}'} |"
        )


def _measure(server: Server, pid: int, address: str, count: int, rate: int) -> Round:
    before, begun = _cpu_s(pid), time.perf_counter()
    latencies = sorted(server.load(address, count, rate))
    seconds, cpu_s = time.perf_counter() - begun, _cpu_s(pid) - before
    measured = Round(count / seconds, cpu_s / count * 1e6)
    if latencies:
        measured.p50_ms = latencies[len(latencies) // 2] / 1000
        measured.p99_ms = latencies[len(latencies) * 99 // 100] / 1000
    return measured


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def _running(servers: list[Server]) -> Iterator[list[tuple[Server, "subprocess.Popen[str]", str]]]:
    running = []
    try:
        for server in servers:
            process = subprocess.Popen(["taskset", "-c", "0", *server.command], stdout=subprocess.PIPE, text=True)  # noqa: S603, S607 - our own servers
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"\d+\.\d+\.\d+\.\d+:\d+", line)
            assert found, f"{server.name} did not start: {line}"
            running.append((server, process, found[0]))
        yield running
    finally:
        for _, process, _ in running:
            process.terminate()
            process.wait()


def _h2load(url: str, body: Path, options: list[str], count: int, rate: int) -> list[int]:
    with tempfile.NamedTemporaryFile() as log:
        command = ["h2load", "-n", str(count), "-d", str(body), f"--log-file={log.name}", *options, url]
        if rate:
            command.insert(1, f"--rps={max(1, rate // CONNECTIONS)}")
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own load
        assert f"{count} succeeded" in told.replace(",", ""), told
        return [int(line.split("\t")[2]) for line in Path(log.name).read_text().splitlines()]


async def _ask_over_http(address: str, count: int, rate: int) -> list[int]:
    """Send requests over 16 connections, each in one packet: h2load sends the body in a second one, and waits for an ACK."""
    host, _, port = address.rpartition(":")
    head = f"POST /v1/check HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {len(CHECK)}\r\n\r\n"
    request = head.encode() + CHECK
    latencies: list[int] = []
    begun_s = time.perf_counter()

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for n in range(number, count, 16):
            if rate:
                await asyncio.sleep(begun_s + n / rate - time.perf_counter())
            sent_s = time.perf_counter()
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = int(answer.partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            latencies.append(int((time.perf_counter() - sent_s) * 1e6))
        writer.close()

    await asyncio.gather(*[client(number) for number in range(16)])
    return latencies


def _redis_load(command: str) -> Callable[[str, int, int], list[int]]:
    def load(address: str, count: int, rate: int) -> list[int]:
        del rate
        host, _, port = address.rpartition(":")
        program = [
            "redis-benchmark",
            "-h",
            host,
            "-p",
            port,
            "-n",
            str(count),
            "-c",
            "10",
            "-P",
            "32",
            "-r",
            "1000",
            "-q",
        ]
        subprocess.run([*program, *command.split()], capture_output=True, check=True)  # noqa: S603 - our own load
        return []

    return load


def _request() -> object:
    request = RateLimitRequest(domain="edge")
    request.descriptors.add().entries.add(key="user", value="192.0.2.1")
    return request


async def _serve_grpc() -> None:
    import grpc.aio  # noqa: PLC0415 - only this server needs it

    response = RateLimitResponse(overall_code=1)
    status = response.statuses.add(code=1, limit_remaining=999_999)
    status.current_limit.requests_per_unit, status.current_limit.unit = 1_000_000, 1
    status.duration_until_reset.seconds = 1
    data = response.SerializeToString()

    async def handle(_request: bytes, _context: object) -> bytes:
        return data

    server = grpc.aio.server()
    _, _, service_and_method = METHOD.rpartition("/")
    handlers = {service_and_method: grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(METHOD.split("/")[1], handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def _serve_http() -> None:
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    from sluicegate.presentation.service.http.uvicorn_server import HttpServer  # noqa: PLC0415
    from sluicegate.presentation.service.settings import Address, ServiceLimits, open_socket  # noqa: PLC0415

    answer = b"x" * 200

    async def handle(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json")

    app = Starlette(routes=[Route("/v1/check", handle, methods=["POST"])])
    listener = open_socket("--http", Address("127.0.0.1", 0))
    await HttpServer(app, listener, ServiceLimits()).start()
    print(f"127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
