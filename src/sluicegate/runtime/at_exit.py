"""What is still to be told when the interpreter exits: log lines and events in queues. It takes a second at most."""

import atexit
from contextlib import suppress
from importlib import import_module
from typing import Final, Protocol
from weakref import WeakValueDictionary

from sluicegate.runtime.system_clock import monotonic_s

FLUSH_S: Final = 1.0
"""The longest that telling what is still to be told may take, in seconds: at exit, or when a limiter is closed."""


class Flushable(Protocol):
    """Something with a queue."""

    def flush(self, deadline_s: float, /) -> None:
        """Empty the queue; give up when the monotonic clock shows `deadline_s`."""
        ...


_flushable: "WeakValueDictionary[int, Flushable]" = WeakValueDictionary()


def flush_at_exit(flushable: Flushable) -> None:
    """Have a queue emptied when the interpreter exits, if it is still there."""
    _flushable[id(flushable)] = flushable


def _flush_all() -> None:
    deadline_s = monotonic_s() + FLUSH_S
    for reference in _flushable.valuerefs():
        flushable = reference()
        if flushable is not None:
            with suppress(Exception):  # the interpreter is exiting: nobody is left to tell
                flushable.flush(deadline_s)


import_module("logging")  # its own function at exit, which closes handlers, is registered first and so runs after ours
atexit.register(_flush_all)
