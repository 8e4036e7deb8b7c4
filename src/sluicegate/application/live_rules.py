"""Which rules hold now, how they are swapped, and the kill switches. Nothing here needs the storage."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from threading import Lock

import msgspec

from sluicegate.application.check import Check
from sluicegate.application.notifier import Notifier
from sluicegate.application.quick_check import PlainChecks, QuickChecks, no_quick_check, nothing_plain
from sluicegate.domain.bucket_key import KeyFormat
from sluicegate.domain.compiled_rules import CompiledRules
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.events import RateLimitEvent, RateLimitRulesChanged, RateLimitRulesRefused, RateLimitSwitched
from sluicegate.domain.protocols import Identifier
from sluicegate.domain.rule import RateLimitRule
from sluicegate.domain.rule_book import KillSwitch, RuleBook, Rules


class RulesSnapshot(msgspec.Struct, frozen=True):
    """All that one check reads of the rules. It is replaced whole, so that no check sees half of a change.

    Args:
        book: What the operators wrote.
        rules: The same, compiled, without what is switched off.
        switches: The kill switches that are thrown: the book's and those thrown at run time.
        until: When the first of these ends; None: none does by itself.
    """

    book: RuleBook
    rules: CompiledRules
    switches: tuple[KillSwitch, ...]
    until: datetime | None


class LiveRules:
    """Hold the rules, swap them, and switch them off and on. Safe to call from any thread.

    Args:
        rules: The first rules.
        key_format: How buckets are named.
        notifier: Whom to tell.
        utc_now: The wall clock.

    Raises:
        InvalidInputError: If the rules are wrong.
    """

    def __init__(
        self, rules: Rules, key_format: KeyFormat, notifier: Notifier, utc_now: Callable[[], datetime]
    ) -> None:
        self._key_format = key_format
        self._notifier = notifier
        self._utc_now = utc_now
        self._lock = Lock()
        self._thrown: dict[str, KillSwitch] = {}
        self.changes = 0
        """How often other rules came into force."""
        self.refusals = 0
        """How often rules were refused."""
        self.last_error = ""
        """Why rules were refused the last time; empty once others came into force."""
        self._build: Callable[[PlainChecks], QuickChecks] | None = None
        self._find_plain: Callable[[str], Callable[[str], Check | None] | None] = nothing_plain
        self.quick_checks: QuickChecks = {}
        """The short ways of a check at the rules' own costs, by the endpoint; they lead nowhere where there are none."""
        self.short_way: tuple[QuickChecks, Mapping[str, RateLimitRule]] = ({}, {})
        """The same, and the rules of the endpoints whose checks go that way and ask only one rule."""
        self.now = self._compile(_book(rules))
        """The state that checks read, once each."""
        self._announce_switches((), self.now.switches)

    def quicken(self, build: Callable[[PlainChecks], QuickChecks]) -> None:
        """Offer the short ways of a check from now on.

        Args:
            build: Builds them for the rules in force, now and whenever they change.
        """
        with self._lock:
            self._build = build
            self._install(self.now)

    @property
    def version(self) -> str:
        """The version of the rules in force; see `RuleBook.version`."""
        return self.now.book.version

    @property
    def book(self) -> RuleBook:
        """The rules in force, as they were written."""
        return self.now.book

    @property
    def switched_off(self) -> tuple[KillSwitch, ...]:
        """The kill switches that are thrown."""
        return self.refreshed().switches

    def replace(self, rules: Rules) -> str:
        """Put other rules into force, and return their version. Buckets keep their tokens; see `token_bucket.convert`.

        Checks that have begun end with the rules that they began with.

        Raises:
            InvalidInputError: If the rules are wrong; those before stay in force.
        """
        book = _book(rules)
        with self._lock:
            before, recovered = self.now, self.last_error
            self.last_error = ""
            if book.version == before.book.version:
                now = before
            else:
                now = self._install(self._compile(book))
                self.changes += 1
        if now is before:
            if recovered:
                self._notifier.log("info", "Rate limit rules are valid again.", rules_version=book.version)
            return book.version
        self._notifier.log(
            "info", "Rate limit rules changed.", rules_version=book.version, previous_version=before.book.version
        )
        self._publish(
            RateLimitRulesChanged,
            lambda: RateLimitRulesChanged(rules_version=book.version, previous_version=before.book.version),
        )
        self._announce_switches(before.switches, now.switches)
        return book.version

    def refuse(self, error: Exception) -> None:
        """Note that rules were refused before they came here, and tell it; once as long as the reason stays the same."""
        text = str(error)
        with self._lock:
            if text == self.last_error:
                return
            self.refusals += 1
            self.last_error = text
        self._notifier.log(
            "error", "Rate limit rules refused; those before stay in force.", error=text, rules_version=self.version
        )
        self._publish(RateLimitRulesRefused, lambda: RateLimitRulesRefused(rules_version=self.version, error=text))

    def warn(self, message: str) -> None:
        """Log a warning about where the rules come from."""
        self._notifier.log("warning", message, rules_version=self.version)

    def switch_off(self, policy: str = "", *, for_seconds: float | None = None, reason: str = "") -> None:
        """Throw the kill switch: a rule, or all rules and lists, let everything pass. Works while the storage is down.

        Args:
            policy: The rule's name; empty: everything.
            for_seconds: After how many seconds it ends by itself, above 0; None: not before `switch_on`.
            reason: Why, for people.

        Raises:
            InvalidInputError: If no rule has this name, or the time is not above 0.
        """
        self._require_policy(policy)
        until = None
        if for_seconds is not None:
            if isinstance(for_seconds, bool) or not isinstance(for_seconds, int | float):
                raise InvalidTypeError(f"for_seconds={for_seconds!r}: expected a number of seconds")
            if not 0 < for_seconds <= _LONGEST_S:
                raise InvalidInputError(f"for_seconds={for_seconds!r}: expected above 0, up to a year")
            until = self._utc_now() + timedelta(seconds=for_seconds)
        self._switch(policy, KillSwitch(policies=(policy,) if policy else (), until=until, reason=reason))

    def switch_on(self, policy: str = "") -> None:
        """Take back what `switch_off` did for the same argument. What a rules file switches off stays off.

        Raises:
            InvalidInputError: If no rule has this name.
        """
        self._require_policy(policy)
        self._switch(policy, None)

    def refreshed(self) -> RulesSnapshot:
        """Return the state that checks read, without kill switches that have ended."""
        state = self.now
        if state.until is None or self._utc_now() < state.until:
            return state
        with self._lock:
            before = self.now
            if before.until is not None and self._utc_now() >= before.until:
                self._install(self._compile(before.book))
            state = self.now
        self._announce_switches(before.switches, state.switches)
        return state

    def plain(self, endpoint: str, identifier: Identifier, cost: int) -> Check | None:
        """Return what a check asks for, if it is remembered from the last one that was the same; see `PlainChecks`."""
        if type(cost) is int and cost == 0 and type(identifier) is str and type(endpoint) is str:
            find = self._find_plain(endpoint)
            return None if find is None else find(identifier)
        return None

    def warn_if_everything_is_off(self, state: RulesSnapshot) -> None:
        """Say now and then that nothing is limited: a kill switch that was forgotten must not stay unnoticed."""
        if any(not switch.policies for switch in state.switches):
            self._notifier.warn_throttled("kill_switch", "The kill switch is thrown: nothing is limited.")

    def _switch(self, policy: str, switch: KillSwitch | None) -> None:
        with self._lock:
            before = self.now
            if switch is None:
                self._thrown.pop(policy, None)
            else:
                self._thrown[policy] = switch
            now = self._install(self._compile(before.book))
        self._announce_switches(before.switches, now.switches)

    def _install(self, state: RulesSnapshot) -> RulesSnapshot:
        """Put a state into force. A check goes the short way with the one or the long way with the other, never both."""
        plain = PlainChecks(state.rules, self._key_format)
        quick_checks: QuickChecks = dict.fromkeys(plain.endpoints, no_quick_check)
        if self._build is not None and state.until is None:
            quick_checks = self._build(plain)
        self.now = state
        self._find_plain = plain.finders.get  # it finds nothing unless the short way has remembered it
        self.quick_checks = quick_checks
        self.short_way = quick_checks, plain.only_rules
        return state

    def _compile(self, book: RuleBook) -> RulesSnapshot:
        now = self._utc_now()
        self._thrown = {policy: switch for policy, switch in self._thrown.items() if not _ended(switch, now)}
        return put_into_force(book, self._key_format, now, tuple(self._thrown.values()))

    def _announce_switches(self, before: tuple[KillSwitch, ...], after: tuple[KillSwitch, ...]) -> None:
        for off, switches, others in ((True, after, before), (False, before, after)):
            for switch in switches:
                if switch not in others:
                    self._announce_switch(switch, off=off)

    def _announce_switch(self, switch: KillSwitch, *, off: bool) -> None:
        self._notifier.log(
            "warning",
            "Rate limit rules are switched off." if off else "Rate limit rules hold again.",
            policies=switch.policies or "all",
            until=switch.until and switch.until.isoformat(),
            reason=switch.reason,
        )
        version = self.now.book.version
        self._publish(
            RateLimitSwitched,
            lambda: RateLimitSwitched(
                policies=switch.policies, off=off, until=switch.until, reason=switch.reason, rules_version=version
            ),
        )

    def _require_policy(self, policy: str) -> None:
        names = {rule.policy for rule in self.now.book.rules}
        if policy and policy not in names:
            raise InvalidInputError(
                f"policy={policy!r}: no rule has this name; there are {', '.join(sorted(names)) or 'none'}"
            )

    def _publish(self, event_type: type[RateLimitEvent], event: Callable[[], RateLimitEvent]) -> None:
        if self._notifier.wants(event_type):
            self._notifier.publish(event())

    def __repr__(self) -> str:
        return f"LiveRules({self.now.book!r}, switched_off={len(self.now.switches)})"


def put_into_force(
    book: RuleBook, key_format: KeyFormat, now: datetime, thrown: tuple[KillSwitch, ...] = ()
) -> RulesSnapshot:
    """Return what checks read of a book.

    Args:
        book: The rules.
        key_format: How buckets are named.
        now: The wall clock's instant, for kill switches that have ended.
        thrown: Kill switches beside those of the book.
    """
    switches = (*(switch for switch in book.kill_switches if not _ended(switch, now)), *thrown)
    off = {policy for switch in switches for policy in switch.policies}
    everything = any(not switch.policies for switch in switches)
    rules = CompiledRules(
        book, key_format, switched_off=(lambda rule: rule.policy in off) if off else None, everything=everything
    )
    ends = [switch.until for switch in switches if switch.until is not None]
    return RulesSnapshot(book, rules, switches, min(ends, default=None))


_LONGEST_S = 366 * 86_400


def _book(rules: Rules) -> RuleBook:
    return rules if isinstance(rules, RuleBook) else RuleBook(rules)


def _ended(switch: KillSwitch, now: datetime) -> bool:
    return switch.until is not None and switch.until <= now
