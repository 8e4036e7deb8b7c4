"""The command `demo`: a protected site, clients good and bad, and what becomes of them."""

from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.demo.clients import CLIENTS, Answered, has_address, run_client
from sluicegate.presentation.cli.demo.screen import Screen, Standing, opened_screen, show_summary
from sluicegate.presentation.cli.terminal import write_complaint
from sluicegate.runtime.system_clock import SystemClock

try:
    from sluicegate.presentation.cli.demo.site import RATES, DemoSite
except ModuleNotFoundError as missing:
    raise InvalidInputError(
        f"demo: needs the package {missing.name!r}; pip install 'sluicegate[cli,service]'"
    ) from None

LONGEST_S = 25
"""When the demonstration ends, whatever is still going on: on a machine that is not overloaded it takes about 8 seconds."""

_SECOND_US = 1_000_000


def demo() -> int:
    """Run the demonstration and return its exit status: 0, or 1 if a client got no answer."""
    standings = {client.name: Standing(client) for client in CLIENTS}
    forwarded = not all(has_address(client.address) for client in CLIENTS)
    with DemoSite(forwarded=forwarded) as site, opened_screen(list(standings.values()), RATES, site.port) as screen:
        answers: SimpleQueue[Answered] = SimpleQueue()
        stop = Event()
        threads = [
            Thread(
                target=run_client,
                args=(client, site.port),
                kwargs={"forwarded": forwarded, "stop": stop, "on_answer": answers.put},
            )
            for client in CLIENTS
        ]
        for thread in threads:
            thread.start()
        try:
            _watch(threads, answers, stop, standings, screen)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    show_summary(list(standings.values()))
    failures = [standing.failure for standing in standings.values() if standing.failure]
    for failure in failures:
        write_complaint(f"demo: the client {failure.client} got no answer: {failure.reason}")
    return 1 if failures else 0


def _watch(
    threads: Sequence[Thread],
    answers: "SimpleQueue[Answered]",
    stop: Event,
    standings: Mapping[str, Standing],
    screen: Screen,
) -> None:
    """Show the answers as they come, until all clients have left."""
    clock = SystemClock()
    started_us = ticked_us = clock.now_us()
    while any(thread.is_alive() for thread in threads) or not answers.empty():
        now_us = clock.now_us()
        if now_us - started_us > LONGEST_S * _SECOND_US:
            stop.set()
        if now_us - ticked_us >= _SECOND_US:
            ticked_us = now_us
            screen.tick()
        try:
            answer = answers.get(timeout=0.1)
        except Empty:
            continue
        standings[answer.client].note(answer)
        screen.show(standings[answer.client], answer)
