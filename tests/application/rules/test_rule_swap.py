"""Rules that take long to compile: what goes on meanwhile, what is in force afterwards, and what a fork copies."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from sluicegate import InvalidInputError, MemoryStorage, RateLimitRule, SyncTokenBucketAdapter
from sluicegate.domain.rules.rule_book_entries import Override
from sluicegate.testing import FakeClock, RecordingLogger
from support.world import NOON

OLD, NEW, OTHER = (RateLimitRule(n, 1, "ip", name="one") for n in (5, 6, 7))
WAIT_S = 30


class SlowRules(Mapping[str, RateLimitRule]):
    """Rules that are not compiled before the test says so.

    Args:
        rule: The one for `GET /`; None: rules that are refused.
        is_slow: Whether they wait from the beginning.
    """

    def __init__(self, rule: RateLimitRule | None, *, is_slow: bool = True) -> None:
        self._rules: dict[str, Any] = {"GET /": rule or ()}
        self.is_slow = is_slow
        self.compiled = 0
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[str]:
        self.compiled += 1
        if self.is_slow:
            self.begun.set()
            assert self.may_go_on.wait(WAIT_S)
        return iter(self._rules)

    def __getitem__(self, endpoint: str) -> Any:
        return self._rules[endpoint]

    def __len__(self) -> int:
        return len(self._rules)


def limiter_of(rules: Any, now: Callable[[], datetime] = lambda: NOON) -> SyncTokenBucketAdapter:
    """Return a limiter whose clocks stand still."""
    clock = FakeClock()
    return SyncTokenBucketAdapter(
        storage=MemoryStorage(clock=clock), rules=rules, clock=clock, wall_clock=now, logger=RecordingLogger()
    )


def limit_of(limiter: SyncTokenBucketAdapter, endpoint: str = "GET /") -> int:
    """Check, and return the limit that the answer names."""
    return limiter.is_allowed(endpoint=endpoint, identifier="10.0.0.1").value.limit


@contextmanager
def compiling(rules: SlowRules, call: Callable[[], object]) -> Iterator[threading.Thread]:
    """Run a call in a thread until it compiles the rules; at the end of the body let it go on, and wait for it."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    assert rules.begun.wait(WAIT_S)
    try:
        yield thread
    finally:
        rules.may_go_on.set()
        thread.join(WAIT_S)


def ends(call: Callable[[], object]) -> bool:
    """Return whether a call in another thread ends while this one waits."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(5)
    return not thread.is_alive()


def test_nothing_waits_for_rules_that_are_compiled_and_nothing_is_lost() -> None:
    """Checks, rules beside code, kill switches and overrides meanwhile: all hold, before and under the new rules."""
    limiter, slow, names = limiter_of({"GET /": OLD}), SlowRules(NEW), list[str]()
    override = Override(policy="one", identifier="10.0.0.9", rule=RateLimitRule(50, 1, "ip"))
    with compiling(slow, lambda: limiter.rules.replace(slow)):
        assert ends(lambda: limit_of(limiter))
        assert ends(lambda: names.append(limiter.rules.add_beside_code("view", (RateLimitRule(2, 1, "ip"),))))
        assert ends(lambda: limiter.rules.override(override))
        assert ends(lambda: limiter.rules.switch_off("one", reason="while it compiles"))
        assert limit_of(limiter, names[0]) == 2
        assert [switch.reason for switch in limiter.rules.switched_off] == ["while it compiles"]
        assert limiter.rules.book["GET /"] == (OLD,)
    assert limiter.rules.book["GET /"] == (NEW,)
    assert [switch.reason for switch in limiter.rules.switched_off] == ["while it compiles"]
    limiter.rules.switch_on("one")
    assert limit_of(limiter) == 6
    assert limit_of(limiter, names[0]) == 2
    assert limiter.is_allowed(endpoint="GET /", identifier="10.0.0.9").value.limit == 50


def test_of_two_reloads_at_once_the_one_that_began_last_holds() -> None:
    """Although the first one ends last: it returns the version that is in force, and has changed nothing."""
    limiter, slow, versions = limiter_of({"GET /": OLD}), SlowRules(NEW), list[str]()
    with compiling(slow, lambda: versions.append(limiter.rules.replace(slow))):
        second = limiter.rules.replace({"GET /": OTHER})
        assert limit_of(limiter) == 7
    assert versions == [second]
    assert limit_of(limiter) == 7
    assert (limiter.rules.version, limiter.rules.changes) == (second, 1)


def test_a_reload_that_is_refused_takes_no_other_ones_place() -> None:
    """The rules that began before it come into force."""
    limiter, slow = limiter_of({"GET /": OLD}), SlowRules(NEW)
    with compiling(slow, lambda: limiter.rules.replace(slow)), pytest.raises(InvalidInputError):
        limiter.rules.replace(SlowRules(None, is_slow=False))
    assert limit_of(limiter) == 6


def test_rules_beside_code_that_new_rules_do_not_fit_refuse_these() -> None:
    """A policy that a route was given meanwhile, and that they lack."""
    limiter, slow, failed = limiter_of({"GET /": OLD}), SlowRules(RateLimitRule(6, 1, "ip")), list[Exception]()

    def reload() -> None:
        try:
            limiter.rules.replace(slow)
        except InvalidInputError as error:
            failed.append(error)

    with compiling(slow, reload):
        limiter.rules.add_beside_code("view", ("one",))
    assert len(failed) == 1
    assert limit_of(limiter) == 5


def test_a_change_that_is_overtaken_again_and_again_comes_into_force() -> None:
    """Others change the rules whenever it has compiled: from the fourth time on they wait."""
    limiter, here = limiter_of({"GET /": OLD}), threading.get_ident()
    others: list[threading.Thread] = []

    class Overtaken(SlowRules):
        def __iter__(self) -> Iterator[str]:
            if threading.get_ident() == here:
                others.append(threading.Thread(target=limiter.rules.switch_off, args=("one",), daemon=True))
                others[-1].start()
                others[-1].join(0.05 if len(others) == 4 else WAIT_S)
            return super().__iter__()

    limiter.rules.replace(Overtaken(NEW, is_slow=False))
    assert limiter.rules.book["GET /"] == (NEW,)
    assert len(others) == 4
    others[-1].join(WAIT_S)
    assert [switch.policies for switch in limiter.rules.switched_off] == [("one",)]


def test_while_one_thread_compiles_what_is_over_the_others_go_on_with_it() -> None:
    """After the end of a kill switch: they are answered, and compile nothing themselves."""
    now, slow = [NOON], SlowRules(OLD, is_slow=False)
    limiter = limiter_of(slow, lambda: now[0])
    limiter.rules.switch_off("one", for_seconds=60)
    derived = limiter.with_rules(SlowRules(OTHER, is_slow=False))
    now[0] += timedelta(seconds=60)
    slow.is_slow, slow.compiled = True, 0
    with compiling(slow, lambda: limit_of(limiter)):
        assert ends(lambda: [limit_of(limiter) for _ in range(5)])
        assert limiter.rules.switched_off
        before = limiter.rules.held.snapshot
        assert ends(lambda: [limit_of(derived) for _ in range(5)])
        assert limiter.rules.held.snapshot is before
        assert (slow.compiled, derived.rules.switched_off) == (1, ())
    assert limiter.rules.switched_off == ()
    assert limit_of(limiter) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("over", [False, True], ids=["a reload", "the end of a kill switch"])
def test_a_fork_while_rules_are_compiled_copies_those_before(over: bool) -> None:
    """The child lacks the thread that compiles: its own checks and changes go on, and nothing half-done is seen."""
    now, slow = [NOON], SlowRules(OLD if over else NEW, is_slow=not over)
    limiter = limiter_of(slow if over else {"GET /": OLD}, lambda: now[0])
    if over:
        limiter.rules.switch_off("one", for_seconds=60)
        now[0] += timedelta(seconds=60)
        slow.is_slow = True
    with compiling(slow, lambda: limit_of(limiter) if over else limiter.rules.replace(slow)):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)  # ends it if it hangs
            try:
                slow.is_slow = False
                good = (
                    limit_of(limiter) == 5 and limiter.rules.book["GET /"] == (OLD,) and not limiter.rules.switched_off
                )
                limiter.rules.replace({"GET /": OTHER})
                os._exit(0 if good and limit_of(limiter) == 7 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
    assert limit_of(limiter) == (5 if over else 6)
