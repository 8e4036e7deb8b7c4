"""Answer the live page and `sluicegate top`: one picture as JSON, or one a second as server-sent events.

The page reads the events with `fetch`, because `EventSource` can send no token.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from sluicegate.application.live.live_feed import Listener, LiveFeed, TooManyListenersError
from sluicegate.application.live.worker_figures import WorkerFigures, WorkerMeter
from sluicegate.presentation.service.http.web import Call, Endpoint, Reply, json_reply, problem
from sluicegate.presentation.web.headers import Headers

PEER_PATH: Final = "/v1/figures"
"""Where one worker asks another."""

EVENTS_OF_A_STREAM: Final = 15
"""After so many the client asks again: a server that ends waits for its responses, and who may watch is looked at again."""

_UNCACHED: Final[Headers] = (("cache-control", "no-store"),)
_STREAM_FIELDS: Final[Headers] = (*_UNCACHED, ("x-accel-buffering", "no"))  # nginx would keep the events back


class LiveApi:
    """Answer them.

    Args:
        meter: Counts in this process.
        ask_peers: Returns what the other processes answer to a path, by name; None: there are none.
        processes: How many processes there are.
        window_s: How long one window is, in seconds.
    """

    def __init__(
        self,
        meter: WorkerMeter,
        ask_peers: Callable[[str], Awaitable[Mapping[str, object]]] | None = None,
        processes: int = 1,
        *,
        window_s: float = 1.0,
    ) -> None:
        self._meter = meter
        self._ask_peers = ask_peers
        self.feed = LiveFeed(self._read_all, processes, window_s=window_s)
        """The pictures."""

    def endpoints(self) -> list[Endpoint]:
        """Return the routes for people."""
        return [
            Endpoint("GET", "/v1/live", self.show),
            Endpoint("GET", "/v1/live/stream", self.stream),
            Endpoint("GET", "/v1/hot-keys", self.hot_keys),
        ]

    def peer_endpoints(self) -> list[Endpoint]:
        """Return the routes for other workers."""
        return [Endpoint("GET", PEER_PATH, self.tell_peer)]

    async def show(self, _: Call) -> Reply:
        """Answer with the picture of the window that ends next, a second from now at most."""
        figures = await self.feed.next()
        if figures is None:
            return problem(503, "Leaving", "The service is on its way out.")
        return json_reply(figures, headers=_UNCACHED)

    async def hot_keys(self, call: Call) -> Reply:
        """Answer with the clients that have the most requests and the most denials."""
        figures = await self.feed.next()
        if figures is None:
            return await self.show(call)
        if figures.hot is None:
            return problem(404, "Not counted", "Hot keys are not counted: see --hot-keys.")
        return json_reply(figures.hot, headers=_UNCACHED)

    async def stream(self, _: Call) -> Reply:
        """Answer with one picture after the other."""
        try:
            listener = self.feed.listen()
        except TooManyListenersError:
            refusal = problem(503, "Too many", "The most streams are open already.")
            return msgspec.structs.replace(refusal, headers=(*refusal.headers, ("retry-after", "10")))
        return Reply(content_type="text/event-stream", headers=_STREAM_FIELDS, chunks=_Events(listener))

    async def tell_peer(self, _: Call) -> Reply:
        """Answer with the figures of this process."""
        return json_reply(await self._meter.read())

    def close(self) -> None:
        """End all streams."""
        self.feed.close()

    async def _read_all(self) -> list[WorkerFigures]:
        own = await self._meter.read()
        if self._ask_peers is None:
            return [own]
        told = await self._ask_peers(PEER_PATH)
        return [own, *[msgspec.convert(told[name], WorkerFigures) for name in sorted(told)]]


def absent_endpoints() -> list[Endpoint]:
    """Return the route of a service without a live page: it answers 404."""

    async def refuse(_: Call) -> Reply:
        return problem(404, "Not counted", "This service does not count for a live page: see --live.")

    return [Endpoint("GET", "/v1/live", refuse)]


class _Events:
    """The body of a stream of events."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._left = EVENTS_OF_A_STREAM

    async def next_chunk(self) -> bytes:
        if not self._left:
            return b""
        self._left -= 1
        figures = await anext(self._listener, None)
        if figures is None:
            self._left = 0
            return b"event: end\ndata: {}\n\n"
        return b"event: live\ndata: " + msgspec.json.encode(figures) + b"\n\n"

    def close(self) -> None:
        self._listener.close()
