"""An alarm whose handler raises, at random instants of checks."""

import signal

from sluicegate import SyncTokenBucketAdapter


class InterruptedByAlarm(BaseException):
    """Raised by the signal's handler."""


def interrupt_checks(limiter: SyncTokenBucketAdapter, times: int) -> int:
    """Check `GET /` until an alarm interrupts it, so many times; return how often it did."""

    def raise_it(*_: object) -> None:
        raise InterruptedByAlarm

    interrupted = 0
    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        for n in range(times):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + n % 10 * 0.00001)
                while True:
                    limiter.is_allowed(endpoint="GET /", identifier="one")
            except InterruptedByAlarm:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return interrupted
