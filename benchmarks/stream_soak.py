"""Five hundred streamed answers at once, for a long time: `python benchmarks/stream_soak.py [seconds] [part ...]`.

Two processes serve streams whose tokens are reserved and committed and which are in flight until they end, on one Redis. Five
hundred clients read them, and some go in the middle.

- `goes`: clients that go. Afterwards all slots are free at once, and what was spent is what the streams told, to the token.
- `kills`: a process is killed every second or so and another one takes its place. Afterwards all slots are free within their
  time, and what was spent is between what the clients saw and what was reserved.

A slot is free before its client has the end of the stream, so that clients may see a few more streams open than there are slots.
Each prints what it measured, and ends with an error if a slot, a token, a task, a connection or a key is left over.
"""

import asyncio
import contextlib
import json
import os
import random
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from sluicegate import RateLimitMiddleware, RateLimitRule, RedisStorage, TokenBucketAdapter
from support.redis_servers import RedisServer, free_port

CLIENTS, WORKERS, SLOTS, HOLD_S = 500, 2, 450, 5.0
MOST_WORDS, CAPACITY = 12, 10_000_000
GOES = 0.3
ENDPOINT = "POST /chat"
WHO = {"endpoint": ENDPOINT, "identifier": "soak"}
RULES = {
    ENDPOINT: (
        RateLimitRule(CAPACITY, 0.001, "global", name="words"),
        RateLimitRule.in_flight(SLOTS, scope="global", hold_seconds=HOLD_S),
    )
}


def limiter_on(url: str) -> TokenBucketAdapter:
    """Return a limiter that would rather fail than let anybody in uncounted."""
    storage = RedisStorage.from_url(url, deadline_ms=10_000)
    return TokenBucketAdapter(storage=storage, rules=RULES, deadline_ms=10_000, on_storage_error="deny")


def serve(url: str, port: int) -> None:
    """Serve streams: each tells in the end how many words it has sent, also when its client has gone."""
    told = Counter[str]()

    async def chat(request: Request) -> StreamingResponse:
        async def words() -> AsyncIterator[bytes]:
            sent = 0
            try:
                for _ in range(random.randint(1, MOST_WORDS)):
                    await asyncio.sleep(random.random() / 5)
                    sent += 1
                    yield b"word\n"
            finally:
                told["words"] += sent
                told["streams"] += 1
                request.state.rate_limit.commit(sent)

        return StreamingResponse(words())

    async def counts(_: Request) -> JSONResponse:
        tasks, files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - of the kernel, at once
        memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return JSONResponse({**told, "tasks": tasks, "files": files, "memory_kb": memory_kb})

    app = Starlette(routes=[Route("/chat", chat, methods=["POST"]), Route("/counts", counts)])
    app.add_middleware(RateLimitMiddleware, limiter=limiter_on(url), cost=lambda _: MOST_WORDS, reserves=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", timeout_keep_alive=1, backlog=4096)


class Worker:
    """A process that serves.

    Args:
        url: The Redis.
    """

    def __init__(self, url: str) -> None:
        self.port = free_port()
        self.process = subprocess.Popen([sys.executable, __file__, "worker", url, str(self.port)])  # noqa: S603 - ourselves
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, "a worker did not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()

    async def counts(self) -> dict[str, int]:
        """Ask what it has told and what it holds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /counts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        counted: dict[str, int] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return counted


class Seen:
    """What the clients saw."""

    def __init__(self) -> None:
        self.answers = Counter[str]()
        self.words = 0
        self.open = 0
        self.most_open = 0


async def read_streams(workers: Sequence[Worker], seen: Seen, end: float) -> None:
    """Ask one of the workers again and again, and go in the middle now and then."""
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", random.choice(workers).port)
        except OSError:
            seen.answers["refused"] += 1
            await asyncio.sleep(0.1)
            continue
        try:
            await read_one(reader, writer, seen)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            seen.answers["cut"] += 1
        finally:
            writer.transport.abort()


async def read_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
    """Read one stream, or a part of it."""
    writer.write(b"POST /chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    status = head.split(b" ", 2)[1].decode()
    if status != "200":
        seen.answers[status] += 1
        await asyncio.sleep(random.random() / 10)
        return
    seen.open += 1
    seen.most_open = max(seen.most_open, seen.open)
    try:
        goes_after = random.randrange(MOST_WORDS) if random.random() < GOES else MOST_WORDS + 1
        read = 0
        while read < goes_after:
            line = await reader.readline()
            if line == b"word\n":
                read += 1
                seen.words += 1
            elif line == b"0\r\n":
                seen.answers["whole"] += 1
                return
            elif not line:
                seen.answers["cut"] += 1
                return
        seen.answers["gone"] += 1
    finally:
        seen.open -= 1


async def free_slots(limiter: TokenBucketAdapter) -> int:
    """Return how many calls may begin, and let them end."""
    holds = [(await limiter.acquire(**WHO)).value for _ in range(SLOTS + 1)]  # type: ignore[union-attr]
    for hold in holds:
        if hold.allowed:
            await limiter.release(hold)
    return sum(hold.allowed for hold in holds)


async def spent(limiter: TokenBucketAdapter) -> int:
    """Return how many words were charged. Each of the calls that only look for slots costs one, which is left out."""
    return CAPACITY - int((await limiter.get_remaining(**WHO)).value)  # type: ignore[union-attr]


async def soak(seconds: float, *, kills: bool) -> None:
    """Let clients read for some time, and look what is left over."""
    seen, killed = Seen(), 0
    with RedisServer("--maxclients", "10000") as server:
        limiter, client = limiter_on(server.url), server.client()
        workers = [Worker(server.url) for _ in range(WORKERS)]
        try:
            before = [await worker.counts() for worker in workers]
            end = time.monotonic() + seconds
            readers = [asyncio.create_task(read_streams(workers, seen, end)) for _ in range(CLIENTS)]
            while kills and time.monotonic() < end - 2:
                await asyncio.sleep(random.uniform(0.5, 1.5))
                at = random.randrange(WORKERS)
                await asyncio.to_thread(workers[at].kill)
                killed += 1
                workers[at] = await asyncio.to_thread(Worker, server.url)
            await asyncio.gather(*readers)
            ended = time.monotonic()
            counted = await settled(workers, before)
            charged = await spent(limiter)
            free = await free_slots(limiter)
            while kills and free < SLOTS and time.monotonic() < ended + HOLD_S + 1:
                await asyncio.sleep(0.1)
                free = await free_slots(limiter)
            keys = client.dbsize()
        finally:
            for worker in workers:
                worker.kill()
            await limiter.aclose()
    words, streams = (sum(one.get(name, 0) for one in counted) for name in ("words", "streams"))
    print(
        f"{'kills' if kills else 'goes'}: {CLIENTS} clients, {WORKERS} processes, {seconds:.0f} s: {dict(seen.answers)};"
        f" {killed} killed; {SLOTS} slots, clients saw {seen.most_open}; {streams} streams told {words} words, {charged} charged;"
        f" {free} slots free, {keys} keys; a process {counted[0]['memory_kb'] // 1024} MB, tasks and files as before",
        flush=True,
    )
    assert free == SLOTS, free
    assert keys <= len(RULES[ENDPOINT]), keys
    assert seen.answers["whole"] > 0
    assert set(seen.answers) <= ({"whole", "gone", "429", "cut", "refused"} if kills else {"whole", "gone", "429"})
    if kills:
        assert seen.words <= charged <= MOST_WORDS * (sum(seen.answers.values()) + CLIENTS)
    else:
        assert charged == words, (charged, words)


async def settled(workers: Sequence[Worker], before: Sequence[dict[str, int]]) -> list[dict[str, int]]:
    """Wait until the workers have no more tasks and files than before any stream, and return their counts."""
    end = time.monotonic() + 60
    while True:
        counted = [await worker.counts() for worker in workers]
        # The connections to Redis stay open.
        if all(
            now["tasks"] <= then["tasks"] + 3 and now["files"] <= then["files"] + 4
            for now, then in zip(counted, before, strict=True)
        ):
            return counted
        assert time.monotonic() < end, f"left over: {before} became {counted}"
        await asyncio.sleep(0.2)


def main(arguments: Sequence[str]) -> None:
    """Run the named parts, or both."""
    if arguments[:1] == ["worker"]:
        serve(arguments[1], int(arguments[2]))
        return
    seconds = next((float(one) for one in arguments if one.isdecimal()), 60.0)
    parts = [one for one in arguments if not one.isdecimal()] or ["goes", "kills"]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for part in parts:
        asyncio.run(soak(seconds, kills={"goes": False, "kills": True}[part]))


if __name__ == "__main__":
    main(sys.argv[1:])
