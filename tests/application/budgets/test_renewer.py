"""Renewals by a thread, where there is none to be had, and in a forked child."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sluicegate import MemoryStorage, RateLimitRule, SyncTokenBucketAdapter
from sluicegate.application.budgets.renewer import Renewer
from support import threadless_process
from support.redis_servers import RedisServer

WHO = {"endpoint": "POST /", "identifier": "10.0.0.1"}


def test_a_hold_needs_no_thread_and_the_next_call_tries_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised and the slot comes back; what was to be called is called when there is a thread."""
    renewer, called = Renewer(), threading.Event()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("sluicegate.application.budgets.renewals.RENEWER", renewer)
    limiter = SyncTokenBucketAdapter(
        storage=MemoryStorage(), rules={"POST /": RateLimitRule.in_flight(1, scope="ip", hold_seconds=60)}
    )
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with limiter.hold(**WHO):
                assert not limiter.acquire(**WHO).value.allowed
        renewer.call_later(0, called.set)
    assert not called.is_set()
    renewer.call_later(0, int)
    assert called.wait(30)


def test_what_a_call_raises_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as what a thread raises, and the thread goes on."""
    renewer, called = Renewer(), threading.Event()
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))
    error = ValueError("of a call")

    def fail() -> None:
        raise error

    renewer.call_later(0, fail)
    renewer.call_later(0, called.set)
    assert called.wait(30)
    assert reported == [error]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_may_leave_a_hold_of_its_parent() -> None:
    """Although a thread of the parent was in the midst of a change: that thread's lock is not in the child."""
    renewer, may_go_on, holds = Renewer(), threading.Event(), threading.Event()
    later = renewer.call_later(60, int)

    def hold_the_lock() -> None:
        with renewer._changed:
            holds.set()
            may_go_on.wait(30)

    thread = threading.Thread(target=hold_the_lock)
    thread.start()
    assert holds.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # ends it if it hangs
        try:
            renewer.cancel(later)
            os._exit(0)
        finally:
            os._exit(2)
    status = os.waitpid(pid, 0)[1]
    may_go_on.set()
    thread.join()
    assert status == 0


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become somebody else")
def test_a_process_in_which_no_thread_can_be_started_decides_and_raises_nothing(redis_server: RedisServer) -> None:
    """By a limit of the system's, and not by a thread that pretends: in memory, on Redis, with an event loop and without."""
    folder = Path(threadless_process.__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-m", threadless_process.__name__, redis_server.url],
        cwd=folder,
        timeout=100,
        check=False,
        capture_output=True,
        text=True,
    )
    if ended.returncode == threadless_process.UNKEPT:
        pytest.skip("this system keeps no limit of processes")
    assert ended.returncode == 0, ended.stderr
