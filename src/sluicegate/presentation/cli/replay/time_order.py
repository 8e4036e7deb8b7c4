"""Put the requests of a log in order of time, in bounded memory."""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from sluicegate.presentation.cli.replay.access_log import LoggedRequest

DEFAULT_REORDER_LINES = 100_000
"""How many requests are held back; about 30 MB if all are different."""

MAX_REORDER_LINES = 10_000_000


def in_order(requests: Iterable[tuple[int, LoggedRequest]], reorder_lines: int) -> Iterator[tuple[int, LoggedRequest]]:
    """Yield requests in order of time; those of one second stay in their order.

    A server writes a line when a request ends, with the time at which it began. So a log is out of order by as much as its
    longest request, and by far more if it was put together from several logs.

    Args:
        requests: Line numbers, ascending, and requests.
        reorder_lines: How many requests are held back at most. A request that comes later than that is out of order.
    """
    held: list[tuple[int, int, LoggedRequest]] = []
    for line_number, request in requests:
        heappush(held, (request.time_s, line_number, request))
        if len(held) > reorder_lines:
            yield heappop(held)[1:]
    while held:
        yield heappop(held)[1:]
