"""Call a function in the midst of another one, at each place where a signal handler or a finaliser could run."""

import sys
from collections.abc import Callable
from types import FrameType

# CPython looks for signals where a Python function begins and after a built-in one has returned, among others.
_PLACES = frozenset({"call", "return", "c_return"})


def interrupted_at(nth: int, call: Callable[[], object], interruption: Callable[[], object]) -> bool:
    """Run a call, and an interruption at the nth place of it; return whether there was such a place."""
    seen = [0]

    def profile(_: FrameType, event: str, __: object) -> None:
        if event in _PLACES:
            seen[0] += 1
            if seen[0] == nth:
                sys.setprofile(None)
                interruption()

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return seen[0] >= nth
