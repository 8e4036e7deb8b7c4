"""What the rules in force are made of: the values that a reload, an operator or the end of a kill switch changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sluicegate.application.rules.added_overrides import AddedOverrides
from sluicegate.domain.rules.rule_book import Rules
from sluicegate.domain.rules.rule_book_entries import KillSwitch


@dataclass(frozen=True, slots=True)
class RuleInputs:
    """Hold rules and what operators have changed at run time. It is replaced whole; nothing in it changes.

    Args:
        rules: The rules as they were written.
        turn: Which replacement brought them, counted from 0.
        thrown: The kill switches that were thrown, by policy; `` stands for all of them.
        added: The overrides that were added.
    """

    rules: Rules
    turn: int = 0
    thrown: Mapping[str, KillSwitch] = field(default_factory=dict[str, KillSwitch])
    added: AddedOverrides = field(default_factory=AddedOverrides)

    def with_rules(self, rules: Rules, turn: int) -> "RuleInputs":
        """Return these inputs with other rules, unless a later replacement came before: its rules stay."""
        return self if turn < self.turn else replace(self, rules=rules, turn=turn)

    def with_switch(self, policy: str, switch: KillSwitch | None, now: datetime) -> "RuleInputs":
        """Return these inputs with a kill switch for a policy, or without one, and without those that have ended."""
        thrown = {one: other for one, other in self.thrown.items() if one != policy and not other.is_over(now)}
        if switch is not None:
            thrown[policy] = switch
        return replace(self, thrown=thrown)

    def with_added(self, added: AddedOverrides) -> "RuleInputs":
        """Return these inputs with other overrides."""
        return replace(self, added=added)
