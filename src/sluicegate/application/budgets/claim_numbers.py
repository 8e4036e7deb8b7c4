"""Numbers that tell claims apart, also between processes that were forked from one another."""

from random import Random, SystemRandom
from typing import Final

from sluicegate.runtime.mutex import fork_count

_BITS: Final = 52  # Lua's numbers are doubles


class ClaimNumbers:
    """Draw numbers of 1 to 2**52: by a generator of its own, because applications seed the common one alike in all workers."""

    def __init__(self) -> None:
        self._random = Random(SystemRandom().getrandbits(128))  # noqa: S311 - it tells claims apart, it hides nothing
        self._fork = fork_count()

    def draw(self) -> int:
        """Return a number that no other claim has."""
        if self._fork != fork_count():
            self._fork = fork_count()
            self._random.seed(SystemRandom().getrandbits(128))
        return self._random.getrandbits(_BITS) + 1
