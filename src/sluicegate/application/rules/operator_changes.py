"""What operators changed while a limiter runs, in plain values: kill switches and overrides."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from sluicegate.domain.rules.rule_book_entries import KillSwitch, Override


class SwitchState(msgspec.Struct, frozen=True):
    """A kill switch that is thrown; no policies: everything is off."""

    policies: tuple[str, ...]
    until: datetime | None
    reason: str


class OverrideState(msgspec.Struct, frozen=True):
    """An override that is in force."""

    policy: str
    identifier: str
    max_tokens: int
    refill_rate: float
    enabled: bool
    until: datetime | None
    reason: str


def switch_states(switches: Iterable[KillSwitch]) -> list[SwitchState]:
    """Return kill switches in plain values."""
    return [SwitchState(one.policies, one.until, one.reason) for one in switches]


def override_states(overrides: Iterable[Override]) -> list[OverrideState]:
    """Return overrides in plain values."""
    return [
        OverrideState(
            one.policy,
            one.identifier,
            one.rule.max_tokens,
            one.rule.refill_rate,
            one.rule.enabled,
            one.until,
            one.reason,
        )
        for one in overrides
    ]
