"""How much work a run does."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Size:
    """Numbers of rounds and checks.

    Args:
        name: What the command line calls it.
        rounds: Rounds of each comparison.
        memory_checks: Checks per round in memory.
        lone_checks: Checks per round of one caller of Redis.
        joint_checks: Checks per round of many callers of Redis.
        requests: Requests per round through a web framework.
        clients: Numbers of clients in memory whose checks are compared.
        keys: Numbers of keys in memory, each in a process of its own.
        full_table: Keys of the full table in which each single check is timed.
        timed_checks: Checks of new clients in each of its states that are timed.
        callers: Numbers of concurrent callers of the plots.
        processes: Numbers of processes.
    """

    name: str
    rounds: int
    memory_checks: int
    lone_checks: int
    joint_checks: int
    requests: int
    clients: tuple[int, ...]
    keys: tuple[int, ...]
    full_table: int
    timed_checks: int
    callers: tuple[int, ...]
    processes: tuple[int, ...]


_FEW_AND_MANY = (1_000, 9_000, 10_000, 30_000, 1_000_000)

QUICK = Size(
    name="quick",
    rounds=5,
    memory_checks=5_000,
    lone_checks=400,
    joint_checks=1_500,
    requests=300,
    clients=(1_000, 9_000, 10_000, 30_000),
    keys=(1_000, 100_000),
    full_table=100_000,
    timed_checks=50_000,
    callers=(1, 50),
    processes=(1, 2),
)
FULL = Size(
    name="full",
    rounds=9,
    memory_checks=20_000,
    lone_checks=1_500,
    joint_checks=6_000,
    requests=1_000,
    clients=_FEW_AND_MANY,
    keys=(1_000, 10_000, 100_000, 1_000_000),
    full_table=1_000_000,
    timed_checks=500_000,
    callers=(1, 10, 50, 200, 1_000),
    processes=(1, 2, 4),
)
SCALE = replace(FULL, name="scale", keys=(*FULL.keys, 10_000_000))

BY_NAME = {size.name: size for size in (QUICK, FULL, SCALE)}
