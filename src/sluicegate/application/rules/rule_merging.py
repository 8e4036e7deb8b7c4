"""Rules from code and rules from a file, made one. Operators and developers may not contradict each other unnoticed."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sluicegate.domain.arguments import require_text
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook, Rules, rules_of

CodeRule: TypeAlias = RateLimitRule | str
"""A rule as code declares it: a rule, the name of one of the file's policies, or a rate."""

CodeRules: TypeAlias = Mapping[str, CodeRule | Sequence[CodeRule]]
"""Endpoints and the rules that code declares for them."""


class RuleRegistry:
    """Collect rules where the routes are, before there is a limiter.

    A registry is a value of its own: make one per application, add to it, and give `registry.rules` to `merge_rules`.
    """

    def __init__(self) -> None:
        self._rules: dict[str, tuple[CodeRule, ...]] = {}

    def add(self, endpoint: str, *rules: CodeRule) -> None:
        """Declare an endpoint's rules.

        Args:
            endpoint: Method and path template, such as `POST /api/v1/sessions`.
            rules: Rules, names of policies of the rules file, or rates.

        Raises:
            InvalidInputError: If there is no rule, or the endpoint has others already.
        """
        name = require_text("endpoint", endpoint)
        if not rules:
            raise InvalidInputError(f"rules[{endpoint!r}]: expected at least one rule")
        if self._rules.setdefault(name, rules) != rules:
            raise InvalidInputError(f"rules[{endpoint!r}]: declared twice in code, with different rules")

    @property
    def rules(self) -> CodeRules:
        """What was declared so far."""
        return dict(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __repr__(self) -> str:
        return f"RuleRegistry(endpoints={len(self._rules)})"


def merge_rules(code_rules: CodeRules, file_rules: Rules) -> RuleBook:
    """Return the rules of code and file together.

    An endpoint that only one of them names gets that one's rules. Where both name it, they must agree, or the file must say
    `replaces_code = true` for the endpoint: then the file's rules hold. Groups, unmatched rule, overrides, lists and kill
    switches are the file's, and hold for rules from code as well.

    Args:
        code_rules: Endpoints and what code declares for them. A text is the name of one of the file's policies, else a rate.
        file_rules: What the file says.

    Raises:
        InvalidInputError: If the two contradict each other; if code names a policy that the file does not have.
    """
    book = file_rules if isinstance(file_rules, RuleBook) else RuleBook(file_rules)
    endpoints: dict[str, tuple[RateLimitRule, ...]] = {}
    if not isinstance(code_rules, Mapping):
        raise InvalidTypeError(f"code_rules={code_rules!r:.80}: expected a mapping from endpoint to rules")
    for written_endpoint, declared in code_rules.items():
        endpoint = require_text("endpoint", written_endpoint)
        rules = rules_of(endpoint, declared, book.policies)
        written = book.endpoints.get(endpoint)
        if written is None or endpoint in book.replaces_code or written == rules:
            endpoints[endpoint] = rules if written is None else written
            continue
        raise InvalidInputError(
            f"endpoints.{endpoint!r}: the rules file says {_names(written)} and the code says {_names(rules)};"
            " remove one of them, or write replaces_code = true in the file"
        )
    for endpoint in book.replaces_code:
        if endpoint not in code_rules:
            raise InvalidInputError(f"endpoints.{endpoint!r}: replaces_code = true, but no code declares it")
    return book.with_endpoints({**endpoints, **book.endpoints})


def with_controls(rules: Rules, operators: RuleBook | None) -> RuleBook:
    """Return rules with what operators say beside them: their overrides of rules of these names, their lists and policies.

    Args:
        rules: The rules. A text among them may be the name of one of the operators' policies.
        operators: The book whose lists and overrides hold for them too. Its endpoints do not; of two entries for the same
            identifier the operators' one holds. None: there is no such book.

    Raises:
        InvalidInputError: If the rules are wrong, or the operators' lists and overrides do not fit them.
    """
    policies = {} if operators is None else operators.policies
    own = rules if isinstance(rules, RuleBook) else RuleBook(rules, policies=policies)
    if operators is None:
        return own
    overrides = {(one.policy, one.identifier): one for one in (*own.overrides, *operators.overrides)}
    listed = {
        (one.scope, one.identifier): (denied, one)
        for book in (own, operators)
        for denied, entries in ((False, book.allow), (True, book.deny))
        for one in entries
    }
    return RuleBook(
        own.endpoints,
        groups=own.groups,
        overrides=tuple(overrides.values()),
        allow=[one for denied, one in listed.values() if not denied],
        deny=[one for denied, one in listed.values() if denied],
        kill_switches=own.kill_switches,
        costs=own.costs,
        policies={**operators.policies, **own.policies},
        replaces_code=own.replaces_code,
    )


def _names(rules: Sequence[RateLimitRule]) -> str:
    return " and ".join(rule.policy for rule in rules)
