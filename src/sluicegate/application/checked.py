"""A check's answer with what a face needs to tell of it: which rules were asked, and whether the storage was."""

import msgspec

from sluicegate.domain.decision import RateLimitResult
from sluicegate.domain.rule import OnStorageError, RateLimitRule


class Checked(msgspec.Struct, frozen=True, gc=False):
    """What a check answered, and why.

    Args:
        result: The answer, as `is_allowed` gives it.
        rules: The rules that were asked; empty where none holds.
        tightest: The one that the answer describes; None where there is none.
        degraded: The failure policy that answered in the storage's place; None: the storage decided.
    """

    result: RateLimitResult
    rules: tuple[RateLimitRule, ...] = ()
    tightest: RateLimitRule | None = None
    degraded: OnStorageError | None = None
