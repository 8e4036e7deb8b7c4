"""A rule book whose rules count the descriptors of the Envoy rate limit protocol as well."""

from collections.abc import Mapping

import msgspec

from sluicegate.domain.rules.descriptors import DescriptorNode, Domains
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook


class DescriptorBook(RuleBook):
    """Hold the rules of another book, and trees of descriptors with their rules.

    A reload replaces both at once, as it replaces any book.

    Args:
        book: Rules of endpoints, with their lists, groups, overrides and switches.
        domains: The trees, by domain.
        rules: The rules that the trees' limits name.

    Raises:
        InvalidInputError: If a rule does not fit the book.
    """

    def __init__(self, book: RuleBook, domains: Domains, rules: Mapping[str, RateLimitRule]) -> None:
        self.domains = domains
        """The trees, by domain."""
        super().__init__(
            {**book.endpoints, **rules},
            groups=book.groups,
            overrides=book.overrides,
            allow=book.allow,
            deny=book.deny,
            kill_switches=book.kill_switches,
            costs=book.costs,
            policies=book.policies,
            replaces_code=book.replaces_code,
        )

    def content(self) -> dict[str, object]:
        """Return the content in plain types, the trees included: a reload that changes only these is a change too."""
        return {**super().content(), "domains": {name: _describe(node) for name, node in self.domains.items()}}


def _describe(node: DescriptorNode) -> dict[str, object]:
    below = [
        *([key, value, _describe(child)] for (key, value), child in node.values.items()),
        *(
            [key, pattern.text, "shared" if pattern.shared else "", _describe(child)]
            for key, patterns in node.patterns.items()
            for pattern, child in patterns
        ),
        *([key, None, _describe(child)] for key, child in node.keys.items()),
    ]
    limit = node.limit
    described: dict[str, object] | None = None
    if limit is not None:
        described = {
            **msgspec.structs.asdict(limit),
            "window": msgspec.structs.asdict(limit.window),
            "replaces": sorted(limit.replaces),
        }
    return {"limit": described, "below": below}
