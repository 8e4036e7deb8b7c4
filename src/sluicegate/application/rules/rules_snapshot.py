"""The rules as checks read them."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sluicegate.application.rules.rule_inputs import RuleInputs
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.rules.compiled_rules import CompiledRules, Keys
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.domain.rules.rule_book_entries import KillSwitch


class RulesSnapshot:
    """All that one check reads of the rules. It is replaced whole, so that no check sees half of a change.

    Args:
        book: The rules as the operators wrote them.
        rules: The same, compiled, without what is switched off.
        switches: The kill switches that are thrown: the book's and those thrown at run time.
        until: When the first of these ends; None: none does by itself.
        effective: The book with overrides that were added; None: the book itself.
        followed: The snapshot of other rules whose lists, overrides and switches are part of this one; None: there is none.
        inputs: What it was compiled from, for the next change; None: the book.
    """

    __slots__ = ("book", "effective", "followed", "inputs", "rules", "switches", "until")

    def __init__(  # noqa: PLR0913, PLR0917 - one record, built in few places
        self,
        book: RuleBook,
        rules: CompiledRules,
        switches: tuple[KillSwitch, ...],
        until: datetime | None,
        effective: RuleBook | None = None,
        followed: "RulesSnapshot | None" = None,
        inputs: "RuleInputs | None" = None,
    ) -> None:
        self.book: Final = book
        self.rules: Final = rules
        self.switches: Final = switches
        self.until: Final = until
        self.effective: Final[RuleBook] = book if effective is None else effective
        self.followed: Final = followed
        self.inputs: Final[RuleInputs] = RuleInputs(book) if inputs is None else inputs

    def match(self, method: str, path: str) -> str | None:
        """Return the endpoint that a request belongs to; None if there is nothing to ask; see `CompiledRules.match`.

        Args:
            method: The request's method in capitals, or `WEBSOCKET`.
            path: The path, decoded, without the query.
        """
        return self.rules.match(method, path)

    def match_every(self, method: str, path: str, ignoring_case: bool, empty_parameters: bool) -> list[str]:
        """Return the endpoints that a request may belong to where the router is not known; see `CompiledRules.match_every`."""
        return self.rules.match_every(method, path, ignoring_case, empty_parameters)

    def match_served(self, method: str, path: str, route: frozenset[str], routes: frozenset[str]) -> str | None:
        """Return the endpoint of a request whose route is known; see `CompiledRules.match_served`."""
        return self.rules.match_served(method, path, route, routes)

    def scopes_of(self, endpoint: str) -> tuple[str, ...]:
        """Return the scopes whose identifiers a check of an endpoint needs, each once; empty if no rule is for it.

        These are the scopes of its rules, and those of the allow and deny lists.
        """
        return self.rules.scopes_of(endpoint)

    def rules_of(self, endpoint: str) -> tuple[RateLimitRule, ...]:
        """Return the rules of an endpoint that are enabled and may deny; none where no rule is for it."""
        found = self.rules.find(endpoint)
        return () if found is None else found.rules

    def counts_calls(self, endpoint: str, also: tuple[str, ...] = ()) -> bool:
        """Return whether an endpoint, or one of others, has rules of calls in flight."""
        rules = self.rules.find(endpoint)
        if rules is not None and rules.in_flight:
            return True
        for other in also:
            rules = self.rules.find(other)
            if rules is not None and rules.in_flight:
                return True
        return False

    def keys_of(self, endpoint: str) -> Keys:
        """Return the keys of an endpoint's rules, without identifiers; none where no rule is for it."""
        found = self.rules.find(endpoint)
        return {} if found is None else found.keys

    def seen_with(self, followed: "RulesSnapshot | None") -> "RulesSnapshot":
        """Return the same rules as of another snapshot of what is followed, which does not fit them."""
        return RulesSnapshot(self.book, self.rules, self.switches, self.until, self.effective, followed, self.inputs)

    @property
    def own_switches(self) -> tuple[KillSwitch, ...]:
        """The kill switches that were not thrown in what is followed."""
        followed = self.followed
        return tuple([one for one in self.switches if followed is None or one not in followed.switches])


class CurrentRules:
    """Hold the snapshot that checks read: `LiveRules` replaces it.

    Args:
        snapshot: The first one.
        utc_now: The wall clock.
        followed: What the snapshot follows; None: nothing.
    """

    __slots__ = ("_followed", "_utc_now", "snapshot")

    def __init__(
        self, snapshot: RulesSnapshot, utc_now: Callable[[], datetime], followed: "CurrentRules | None" = None
    ) -> None:
        self.snapshot = snapshot
        self._followed: Final = followed
        self._utc_now = utc_now

    @property
    def is_over(self) -> bool:
        """Whether the snapshot must be replaced before it is read: a kill switch has ended, or what it follows has changed."""
        followed = self._followed
        if followed is not None and (followed.snapshot is not self.snapshot.followed or followed.is_over):
            return True
        return self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether a kill switch of the snapshot has ended."""
        until = self.snapshot.until
        return until is not None and self._utc_now() >= until


def take_snapshot(  # noqa: PLR0913, PLR0917 - what a snapshot is made of
    book: RuleBook,
    key_format: KeyFormat,
    now: datetime,
    effective: RuleBook | None = None,
    followed: RulesSnapshot | None = None,
    inputs: RuleInputs | None = None,
    *,
    enabled: bool = True,
    taken: Keys | None = None,
) -> RulesSnapshot:
    """Return what checks read of a book.

    Args:
        book: The rules.
        key_format: How buckets are named.
        now: The wall clock's instant, for kill switches that have ended.
        effective: The book with overrides that were added; None: the book itself.
        followed: What the book's lists and overrides were taken from, and whose switches hold too; None: nothing.
        inputs: What the book was made of: its kill switches hold beside those of the book; None: there are none.
        enabled: Whether anything counts at all.
        taken: The keys that others have; see `CompiledRules`.
    """
    thrown = () if inputs is None else inputs.thrown.values()
    others = () if followed is None else followed.switches
    switches = tuple([switch for switch in (*others, *book.kill_switches, *thrown) if not switch.is_over(now)])
    off = {policy for switch in switches for policy in switch.policies}
    everything = not enabled or any(not switch.policies for switch in switches)
    rules = CompiledRules(
        book if effective is None else effective,
        key_format,
        switched_off=(lambda rule: rule.policy in off) if off else None,
        everything=everything,
        taken=taken,
    )
    ends = [switch.until for switch in switches if switch.until is not None]
    return RulesSnapshot(book, rules, switches, min(ends, default=None), effective, followed, inputs)
