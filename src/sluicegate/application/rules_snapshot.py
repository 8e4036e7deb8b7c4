"""The rules as checks read them."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sluicegate.domain.bucket_key import KeyFormat
from sluicegate.domain.compiled_rules import CompiledRules
from sluicegate.domain.rule_book import RuleBook
from sluicegate.domain.rule_book_entries import KillSwitch


class RulesSnapshot:
    """All that one check reads of the rules. It is replaced whole, so that no check sees half of a change.

    Args:
        book: The rules as the operators wrote them.
        rules: The same, compiled, without what is switched off.
        switches: The kill switches that are thrown: the book's and those thrown at run time.
        until: When the first of these ends; None: none does by itself.
    """

    __slots__ = ("book", "rules", "switches", "until")

    def __init__(
        self, book: RuleBook, rules: CompiledRules, switches: tuple[KillSwitch, ...], until: datetime | None
    ) -> None:
        self.book: Final = book
        self.rules: Final = rules
        self.switches: Final = switches
        self.until: Final = until


class CurrentRules:
    """Hold the snapshot that checks read: `LiveRules` replaces it.

    Args:
        snapshot: The first one.
        utc_now: The wall clock.
    """

    __slots__ = ("_utc_now", "snapshot")

    def __init__(self, snapshot: RulesSnapshot, utc_now: Callable[[], datetime]) -> None:
        self.snapshot = snapshot
        self._utc_now = utc_now

    @property
    def is_over(self) -> bool:
        """Whether a kill switch of the snapshot has ended, so that it must be replaced before it is read."""
        until = self.snapshot.until
        return until is not None and self._utc_now() >= until


def take_snapshot(
    book: RuleBook,
    key_format: KeyFormat,
    now: datetime,
    thrown: tuple[KillSwitch, ...] = (),
    effective: RuleBook | None = None,
) -> RulesSnapshot:
    """Return what checks read of a book.

    Args:
        book: The rules.
        key_format: How buckets are named.
        now: The wall clock's instant, for kill switches that have ended.
        thrown: Kill switches beside those of the book.
        effective: The book with overrides that were added; None: the book itself.
    """
    switches = (*(switch for switch in book.kill_switches if not is_over(switch, now)), *thrown)
    off = {policy for switch in switches for policy in switch.policies}
    everything = any(not switch.policies for switch in switches)
    rules = CompiledRules(
        book if effective is None else effective,
        key_format,
        switched_off=(lambda rule: rule.policy in off) if off else None,
        everything=everything,
    )
    ends = [switch.until for switch in switches if switch.until is not None]
    return RulesSnapshot(book, rules, switches, min(ends, default=None))


def is_over(switch: KillSwitch, now: datetime) -> bool:
    """Return whether a kill switch has ended by itself."""
    return switch.until is not None and switch.until <= now
