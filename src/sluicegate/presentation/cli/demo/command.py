"""Run the command `sluicegate demo`: a protected site and several clients, shown live."""

from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.demo.clients import CLIENTS, Response, has_address, run_client
from sluicegate.presentation.cli.demo.screen import ClientStats, Screen, open_screen, print_summary
from sluicegate.presentation.cli.terminal import write_error
from sluicegate.runtime.system_clock import SystemClock

try:
    from sluicegate.presentation.cli.demo.site import RATES, DemoSite
except ModuleNotFoundError as missing:
    raise InvalidInputError(
        f"demo: needs the package {missing.name!r}; pip install 'sluicegate[cli,service]'"
    ) from None

LONGEST_S = 25
"""Seconds after which the demo ends in any case. On a machine that is not overloaded it takes about 8."""

_SECOND_US = 1_000_000


def demo() -> int:
    """Run the demo and return the exit status: 0, or 1 if a client got no response."""
    stats = {client.name: ClientStats(client) for client in CLIENTS}
    forwarded = not all(has_address(client.address) for client in CLIENTS)
    with DemoSite(forwarded=forwarded) as site, open_screen(list(stats.values()), RATES, site.port) as screen:
        responses: SimpleQueue[Response] = SimpleQueue()
        stop = Event()
        threads = [
            Thread(
                target=run_client,
                args=(client, site.port),
                kwargs={"forwarded": forwarded, "stop": stop, "on_response": responses.put},
            )
            for client in CLIENTS
        ]
        for thread in threads:
            thread.start()
        try:
            _watch(threads, responses, stop, stats, screen)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    print_summary(list(stats.values()))
    failures = [one.failure for one in stats.values() if one.failure]
    for failure in failures:
        write_error(f"demo: the client {failure.client} got no answer: {failure.reason}")
    return 1 if failures else 0


def _watch(
    threads: Sequence[Thread],
    responses: "SimpleQueue[Response]",
    stop: Event,
    stats: Mapping[str, ClientStats],
    screen: Screen,
) -> None:
    """Show the responses as they arrive, until all clients have ended."""
    clock = SystemClock()
    started_us = ticked_us = clock.now_us()
    while any(thread.is_alive() for thread in threads) or not responses.empty():
        now_us = clock.now_us()
        if now_us - started_us > LONGEST_S * _SECOND_US:
            stop.set()
        if now_us - ticked_us >= _SECOND_US:
            ticked_us = now_us
            screen.tick()
        try:
            response = responses.get(timeout=0.1)
        except Empty:
            continue
        stats[response.client].add(response)
        screen.show(stats[response.client], response)
