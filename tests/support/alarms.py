"""An alarm whose handler raises, at random instants of checks."""

import signal
import sys
import time

from sluicegate import SyncTokenBucketAdapter

_LOST_S = 1.0


class InterruptedByAlarm(BaseException):
    """Raised by the signal's handler."""


def interrupt_checks(limiter: SyncTokenBucketAdapter, times: int) -> int:
    """Check `GET /` until an alarm interrupts it, so many times; return how often it did.

    What the handler raises while the garbage collector runs a callback, as Hypothesis has one, is lost: Python can only report
    it, and pytest fails the test for the report. Such an alarm is set again, and not reported. pytest-timeout uses the same
    timer, and gets it back.
    """
    report = sys.unraisablehook

    def raise_it(*_: object) -> None:
        raise InterruptedByAlarm

    def report_others(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, InterruptedByAlarm):
            report(lost)

    interrupted = 0
    sys.unraisablehook = report_others
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
        sys.unraisablehook = report
    return interrupted
