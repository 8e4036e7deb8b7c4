"""Rules that stand beside the code that they limit, as part of the rules in force."""

from sluicegate.domain.rules.compiled_rules import CompiledRules
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook, rules_of


class RulesBesideCode:
    """Keep them, and put them into each new compilation of the rules. The owner sees to it that one thread does at a time."""

    def __init__(self) -> None:
        self._by_name: dict[str, tuple[str, tuple[RateLimitRule | str, ...]]] = {}

    def add(
        self, endpoint: str, rules: tuple[RateLimitRule | str, ...], compiled: CompiledRules, book: RuleBook
    ) -> str:
        """Add rules, and return what checks call them; see `LiveRules.add_beside_code`.

        Raises:
            InvalidInputError: If a text is neither a policy's name nor a rate, or two rules would share a bucket.
        """
        name = f"{endpoint}\x1f{rules!r}"
        if name not in self._by_name:
            _compile(compiled, book, name, endpoint, rules)
            self._by_name[name] = endpoint, rules
        return name

    def __len__(self) -> int:
        return len(self._by_name)

    def compile_all(self, compiled: CompiledRules, book: RuleBook) -> None:
        """Put all of them into a compilation.

        Raises:
            InvalidInputError: If the book lacks a policy that one of them names.
        """
        for name, (endpoint, rules) in self._by_name.items():
            _compile(compiled, book, name, endpoint, rules)

    def by_endpoint(self, book: RuleBook) -> dict[str, tuple[RateLimitRule, ...]]:
        """Return them by the endpoint as users call it."""
        found: dict[str, tuple[RateLimitRule, ...]] = {}
        for endpoint, rules in tuple(self._by_name.values()):
            resolved = rules_of(endpoint, rules, book.policies)
            found[endpoint] = tuple(dict.fromkeys((*found.get(endpoint, ()), *resolved)))
        return found


def _compile(
    compiled: CompiledRules, book: RuleBook, name: str, endpoint: str, rules: tuple[RateLimitRule | str, ...]
) -> None:
    resolved = tuple(dict.fromkeys(rules_of(endpoint, rules, book.policies)))
    named = {rule for rule in rules if isinstance(rule, str)}
    compiled.add_beside_code(name, endpoint, resolved, named & book.policies.keys())
