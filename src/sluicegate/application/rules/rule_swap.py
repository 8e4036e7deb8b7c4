"""How other rules come into force while checks go on: compiled outside of any lock, and swapped in one step."""

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeAlias

from sluicegate.application.rules.rule_inputs import RuleInputs
from sluicegate.application.rules.rule_merging import with_controls
from sluicegate.application.rules.rules_beside_code import RulesBesideCode, compile_beside_code
from sluicegate.application.rules.rules_snapshot import CurrentRules, RulesSnapshot, take_snapshot
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.errors import InvalidInputError
from sluicegate.domain.rules.compiled_rules import CompiledRules, Keys
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook
from sluicegate.runtime.mutex import new_mutex

Change: TypeAlias = Callable[[RuleInputs], RuleInputs]
"""What a change makes of the inputs of the rules in force. It may be asked again, when others came into force meanwhile."""

_FREE_TRIES: Final = 3  # then nothing else comes into force until the rules are compiled


class RuleSwap:
    """Compile rules from their inputs and swap them. Safe to call from any thread, signal handler and forked child.

    A change compiles what it makes of the inputs, and puts it into force unless something else came into force meanwhile: then
    it compiles again. So no change is lost, and a lock is held for one step. Only a change that was overtaken three times holds
    it while it compiles. A fork copies either the rules before a change or those after it.

    Args:
        inputs: What the first rules are made of.
        key_format: How buckets are named.
        utc_now: The wall clock.
        without_claims: The name of a storage that cannot count calls in flight; empty: it can.
        enabled: Whether anything counts at all.
        taken: Returns the keys of a book that others have; see `CompiledRules`.
        followed: Returns the snapshot of other rules whose lists, overrides, policies and switches hold too; None: there are
            none.
        followed_held: Where these are held.

    Raises:
        InvalidInputError: If the rules are wrong, or the storage cannot count what they count.
    """

    def __init__(  # noqa: PLR0913 - what a snapshot is made of
        self,
        inputs: RuleInputs,
        key_format: KeyFormat,
        utc_now: Callable[[], datetime],
        without_claims: str,
        *,
        enabled: bool,
        taken: Callable[[RuleBook, KeyFormat], Keys],
        followed: Callable[[], RulesSnapshot] | None,
        followed_held: CurrentRules | None,
    ) -> None:
        self._key_format = key_format
        self._utc_now = utc_now
        self._without_claims = without_claims
        self._enabled = enabled
        self._taken = taken
        self._followed = followed
        self._mutex = new_mutex()
        self._without_switches: tuple[RulesSnapshot, CompiledRules] | None = None
        self.beside_code: Final = RulesBesideCode()
        """Those that stand beside the code that they limit."""
        self.held: Final = CurrentRules(self._compile(inputs), utc_now, followed_held)
        """What checks read, unless it is over."""

    def change(self, change: Change) -> tuple[RulesSnapshot, RulesSnapshot]:
        """Put what a change makes of the inputs into force; return the snapshots before and after it.

        Raises:
            InvalidInputError: If the rules that come of it are wrong; those before stay in force.
        """
        for _ in range(_FREE_TRIES):
            swapped = self._try(change)
            if swapped is not None:
                return swapped
        with self._mutex:
            while True:
                swapped = self._try(change)
                if swapped is not None:  # else a signal handler came, and changed them in this thread
                    return swapped

    def renew(self) -> tuple[RulesSnapshot, RulesSnapshot]:
        """Compile what is in force again, since it is over; return the snapshots before and after it.

        Raises:
            InvalidInputError: If what is followed has changed and does not fit; what was in force stays.
        """
        held = self.held
        if not held.has_ended and (self._followed is None or self._followed() is held.snapshot.followed):
            return held.snapshot, held.snapshot  # another thread is still compiling what is followed
        failed: InvalidInputError
        try:
            return self.change(lambda inputs: inputs)
        except InvalidInputError as error:
            failed = error
        before = held.snapshot
        self._put(
            before, before.seen_with(None if self._followed is None else self._followed()), self.beside_code.count
        )
        raise failed

    def add_beside_code(self, endpoint: str, rules: tuple[RateLimitRule | str, ...]) -> str:
        """Put rules into force that stand beside code; see `LiveRules.add_beside_code`.

        Raises:
            InvalidInputError: If a text is neither a policy's name nor a rate, or two rules would share a bucket.
        """
        name = f"{endpoint}\x1f{rules!r}"
        if name in self.beside_code:
            return name
        while True:
            snapshot = self.held.snapshot
            compile_beside_code(snapshot.rules, snapshot.book, name, endpoint, rules)
            with self._mutex:
                if self.held.snapshot is snapshot and name not in self.beside_code:
                    self.beside_code.add(name, endpoint, rules)
            if self.held.snapshot is snapshot:  # else other rules came into force, perhaps without these
                return name

    def without_switches(self, snapshot: RulesSnapshot) -> CompiledRules:
        """Return the rules of a snapshot as they are without kill switches."""
        if not snapshot.switches:
            return snapshot.rules
        known = self._without_switches
        if known is None or known[0] is not snapshot:
            taken = self._taken(snapshot.effective, self._key_format)
            known = snapshot, CompiledRules(snapshot.effective, self._key_format, taken=taken)
        self.beside_code.compile_missing(known[1], snapshot.book)
        self._without_switches = known
        return known[1]

    def _try(self, change: Change) -> tuple[RulesSnapshot, RulesSnapshot] | None:
        """Compile, and swap unless something else came into force meanwhile; return the snapshots before and after."""
        before = self.held.snapshot
        now = self._compile(change(before.inputs))
        while self.held.snapshot is before:
            if self._put(before, now, self.beside_code.compile_missing(now.rules, now.book)):
                return before, now
        return None

    def _put(self, before: RulesSnapshot, now: RulesSnapshot, beside_code: int) -> bool:
        """Put a snapshot into force that has so many rules beside code, unless it or they are not those any more."""
        held, known = self.held, self.beside_code
        with self._mutex:
            # One line without a call, so that not even a signal handler comes between the question and what follows from it.
            held.snapshot = put = now if held.snapshot is before and known.count == beside_code else held.snapshot
        return put is now

    def _compile(self, inputs: RuleInputs) -> RulesSnapshot:
        followed = None if self._followed is None else self._followed()
        book = with_controls(inputs.rules, None if followed is None else followed.effective)
        if self._without_claims and any(rule.counts_in_flight for rule in book.rules):
            raise InvalidInputError(
                f"storage={self._without_claims}: cannot count calls in flight, as a rule asks:"
                " it has not the verbs of ReservationStorage"
            )
        now = self._utc_now()
        effective = inputs.added.merged(book, now)
        taken = self._taken(effective, self._key_format)
        snapshot = take_snapshot(
            book, self._key_format, now, effective, followed, inputs, enabled=self._enabled, taken=taken
        )
        self.beside_code.compile_missing(snapshot.rules, book)
        return snapshot
