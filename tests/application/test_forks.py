"""A process that forks while its threads are busy: parent and children go on."""

import os
import signal
import threading

import pytest

from sluicegate import (
    MemoryStorage,
    RateLimitEvent,
    RateLimitRule,
    SyncTokenBucketAdapter,
)
from sluicegate.testing import RecordingLogger
from support.down_storage import DownStorage

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

RULES = {"GET /": (RateLimitRule(10**6, 1, "ip"), RateLimitRule(10**6, 2, "ip"))}


class ThreadedBus:
    """A bus that is called from a thread of the limiter's."""

    def __init__(self) -> None:
        self.heard = threading.Event()

    def listens(self, _: type[RateLimitEvent], /) -> bool:
        """Return True."""
        return True

    def publish(self, _: RateLimitEvent, /) -> None:
        """Note that there was one."""
        self.heard.set()


def goes_on(limiter: SyncTokenBucketAdapter, bus: ThreadedBus) -> bool:
    """Return whether a child is answered, can change the rules, and is heard by its bus."""
    bus.heard.clear()
    for n in range(10):
        if not limiter.is_allowed(endpoint="GET /", identifier=str(n)).value.allowed:
            return False
    limiter.reset(endpoint="GET /", identifier="1")
    limiter.rules.switch_off(for_seconds=1)
    limiter.rules.replace({"GET /": RateLimitRule(3, 3, "ip")})
    return bus.heard.wait(30) and os.fork() >= 0


@pytest.mark.parametrize("storage", [MemoryStorage(), DownStorage()], ids=["in memory", "in an outage"])
def test_children_of_a_busy_process_go_on(storage: MemoryStorage) -> None:
    """10 forks while three threads check, reset, and change the rules: no child hangs, and the parent neither."""
    bus = ThreadedBus()
    limiter = SyncTokenBucketAdapter(
        storage=storage, rules=RULES, event_bus=bus, logger=RecordingLogger(), on_storage_error="local"
    )
    ended = threading.Event()

    def work(nth: int) -> None:
        while not ended.wait(0.000_1):
            for n in range(20):
                limiter.is_allowed(endpoint="GET /", identifier=f"{nth}-{n}")
            limiter.reset(endpoint="GET /", identifier=f"{nth}-1")
            if nth == 0:
                limiter.rules.switch_off(for_seconds=60)
                limiter.rules.switch_on()

    threads = [threading.Thread(target=work, args=(nth,)) for nth in range(3)]
    for thread in threads:
        thread.start()
    statuses: list[int] = []
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)  # ends it if it hangs
                try:
                    os._exit(0 if goes_on(limiter, bus) else 1)
                finally:
                    os._exit(2)
            statuses.append(os.waitpid(pid, 0)[1])
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert statuses == [0] * 10
    assert limiter.is_allowed(endpoint="GET /", identifier="last").value.allowed
