"""The store of a meter in memory: counters and bins, for threads and signal handlers."""

import threading

from sluicegate.application.metrics.catalogue import DURATION, FAILURES
from sluicegate.application.metrics.meter_store import MeterStore


def test_counters_add_up_and_values_fall_into_bins() -> None:
    """A value that equals a bound is below it, as Prometheus has it."""
    store = MeterStore()
    store.add(FAILURES, ("allow", "timeout"), 1)
    store.add(FAILURES, ("allow", "timeout"), 2)
    store.add(FAILURES, ("deny", "timeout"), 1)
    assert list(store.counters()) == [
        (FAILURES.name, ("allow", "timeout"), 3),
        (FAILURES.name, ("deny", "timeout"), 1),
    ]
    for value in (0.0, DURATION.bounds[0], DURATION.bounds[0] * 1.01, 99.0):
        store.record(DURATION, ("allowed",), value)
    bins = store.bins(DURATION)["allowed",]
    assert (bins[:2], bins[-1], len(bins)) == ([2, 1], 1, len(DURATION.bounds) + 1)
    bins[0] = 99
    assert store.bins(DURATION)["allowed",][0] == 2
    assert MeterStore().bins(DURATION) == {}


def test_threads_lose_nothing_and_a_signal_handler_in_the_midst_does_not_hang() -> None:
    """What interrupts a call here is left out."""
    store = MeterStore()

    def work() -> None:
        for _ in range(2_000):
            store.add(FAILURES, ("allow", "timeout"), 1)
            store.record(DURATION, ("allowed",), 0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store._mutex:  # as in a signal handler
        work()
    assert [value for _, _, value in store.counters()] == [8_000]
    assert store.bins(DURATION)["allowed",][0] == 8_000
