"""Rules that stand beside the code that they limit, as part of the rules in force."""

from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook, rules_of


class RulesBesideCode:
    """Keep them, and put them into each compilation of the rules. They become more, never fewer."""

    def __init__(self) -> None:
        self._by_name: dict[str, tuple[str, tuple[RateLimitRule | str, ...]]] = {}
        self.count = 0
        """How many there are."""

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return self.count

    def add(self, name: str, endpoint: str, rules: tuple[RateLimitRule | str, ...]) -> None:
        """Keep rules. One thread at a time may.

        Args:
            name: What checks call them; not yet among the names.
            endpoint: What users call the code that they limit.
            rules: Rules, names of policies, or rates.
        """
        self._by_name[name] = endpoint, rules
        self.count += 1

    def compile_missing(self, compiled: CompiledRules, book: RuleBook) -> int:
        """Put those into a compilation that it lacks, and return how many there are; others may be added meanwhile.

        Raises:
            InvalidInputError: If the book lacks a policy that one of them names, or two rules would share a bucket.
        """
        count = self.count
        for name, (endpoint, rules) in tuple(self._by_name.items()):
            if not compiled.has_beside_code(name):
                compile_beside_code(compiled, book, name, endpoint, rules)
        return count

    def by_endpoint(self, book: RuleBook) -> dict[str, tuple[RateLimitRule, ...]]:
        """Return them by the endpoint as users call it."""
        found: dict[str, tuple[RateLimitRule, ...]] = {}
        for endpoint, rules in tuple(self._by_name.values()):
            resolved = rules_of(endpoint, rules, book.policies)
            found[endpoint] = tuple(dict.fromkeys((*found.get(endpoint, ()), *resolved)))
        return found


def compile_beside_code(
    compiled: CompiledRules, book: RuleBook, name: str, endpoint: str, rules: tuple[RateLimitRule | str, ...]
) -> None:
    """Put rules that stand beside code into a compilation of a book, in one step.

    Raises:
        InvalidInputError: If the book lacks a policy that they name, or two of them would share a bucket.
    """
    resolved = tuple(dict.fromkeys(rules_of(endpoint, rules, book.policies)))
    named = {rule for rule in rules if isinstance(rule, str)}
    compiled.add_beside_code(name, endpoint, resolved, named & book.policies.keys())
