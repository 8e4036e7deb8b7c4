"""An alarm whose handler raises, at random instants of checks."""

import signal
import time

from sluicegate import SyncTokenBucketAdapter

_LOST_S = 1.0


class InterruptedByAlarm(BaseException):
    """Raised by the signal's handler."""


def interrupt_checks(limiter: SyncTokenBucketAdapter, times: int) -> int:
    """Check `GET /` until an alarm interrupts it, so many times; return how often it did.

    An alarm that did not interrupt is set again: what its handler raises while the garbage collector runs a callback is lost, and
    Hypothesis has such a callback. pytest-timeout uses the same timer, and gets it back.
    """

    def raise_it(*_: object) -> None:
        raise InterruptedByAlarm

    interrupted = 0
    timeout = signal.setitimer(signal.ITIMER_REAL, 0)
    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        while interrupted < times:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + interrupted % 10 * 0.00001)
                lost_at = time.monotonic() + _LOST_S
                while time.monotonic() < lost_at:
                    limiter.is_allowed(endpoint="GET /", identifier="one")
            except InterruptedByAlarm:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timeout)
    return interrupted
