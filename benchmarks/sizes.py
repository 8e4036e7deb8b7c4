"""How much work a run does."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """Numbers of rounds and checks.

    Args:
        rounds: Rounds of each comparison.
        memory_checks: Checks per round in memory.
        lone_checks: Checks per round of one caller of Redis.
        joint_checks: Checks per round of many callers of Redis.
        requests: Requests per round through a web framework.
        keys: Numbers of keys in memory.
        callers: Numbers of concurrent callers of the plots.
        processes: Numbers of processes.
    """

    rounds: int
    memory_checks: int
    lone_checks: int
    joint_checks: int
    requests: int
    keys: tuple[int, ...]
    callers: tuple[int, ...]
    processes: tuple[int, ...]


QUICK = Size(5, 5_000, 400, 1_500, 300, (1_000, 100_000), (1, 50), (1, 2))
FULL = Size(9, 20_000, 1_500, 6_000, 1_000, (1_000, 10_000, 100_000, 1_000_000), (1, 10, 50, 200, 1_000), (1, 2, 4))
SCALE = Size(
    9, 20_000, 1_500, 6_000, 1_000, (1_000, 10_000, 100_000, 1_000_000, 10_000_000), (1, 10, 50, 200, 1_000), (1, 2, 4)
)
