"""Put the requests of a log in order of time, in bounded memory."""

from collections.abc import Iterable, Iterator
from operator import attrgetter

from sluicegate.presentation.cli.replay.formats.record import LoggedRequest

DEFAULT_REORDER_LINES = 100_000
"""How many requests are held back at least, and twice as many at most."""

MAX_REORDER_LINES = 10_000_000

_BY_TIME = attrgetter("time_us")


def in_order(requests: Iterable[LoggedRequest], reorder_lines: int) -> Iterator[LoggedRequest]:
    """Yield requests in order of time; those of one instant stay in their order.

    A server writes a line when a request ends, with the time at which it began. So a log is out of order by as much as its
    longest request, and by far more if it was put together from several logs. Requests are sorted in blocks, of which the
    earlier half leaves: nearly sorted ones cost next to nothing.

    Args:
        requests: The requests as the log has them.
        reorder_lines: A request that stands at most so many requests too late is put in order. Twice as many are held.
    """
    if reorder_lines == 0:
        yield from requests
        return
    held: list[LoggedRequest] = []
    for request in requests:
        held.append(request)
        if len(held) >= 2 * reorder_lines:
            held.sort(key=_BY_TIME)
            yield from held[:reorder_lines]
            del held[:reorder_lines]
    held.sort(key=_BY_TIME)
    yield from held
