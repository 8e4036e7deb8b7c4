"""What burst each client needed at the rate of each rule that is replayed: how far the limit is from its clients."""

from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.domain.rules.rate import exact_rate
from sluicegate.domain.rules.rule import RateLimitScope
from sluicegate.presentation.cli.replay.suggest.burst_need import Rates
from sluicegate.presentation.cli.replay.suggest.need_table import NeedTable


class RuleNeeds:
    """Measure what clients needed at each rule that counts clients one by one.

    Args:
        rules: The rules.
    """

    def __init__(self, rules: CompiledRules) -> None:
        self._tables: dict[str, list[tuple[str, int, int, NeedTable]]] = {}
        for one in rules.all_rules:
            for limit in (*one.limits, *one.shadows):
                rule = limit.rule
                if rule.scope != RateLimitScope.GLOBAL:
                    table = NeedTable(Rates([exact_rate(rule.refill_rate) / 60]))
                    self._tables.setdefault(one.endpoint, []).append((rule.policy, rule.max_tokens, rule.cost, table))

    def add(self, endpoint: str, who: str, time_us: int) -> None:
        """Add a request that the endpoint's rules decided."""
        for _, _, cost, table in self._tables.get(endpoint, ()):
            table.add(endpoint, who, time_us, cost)

    def rows(self) -> list[tuple[str, str, int, dict[str, int]]]:
        """Return endpoint, policy, capacity, and what each client needed, of each rule."""
        return [
            (
                endpoint,
                policy,
                max_tokens,
                {who: need.needs(table.rates)[0] for _, who, need in table.items()},
            )
            for endpoint, tables in self._tables.items()
            for policy, max_tokens, _, table in tables
        ]
