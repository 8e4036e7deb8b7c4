"""Which rules hold now, how they are swapped, and the kill switches. Nothing here needs the storage."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Final

from sluicegate.application.notifier import Notifier
from sluicegate.application.rules.relatives import Neighbours, Relatives
from sluicegate.application.rules.rule_inputs import RuleInputs
from sluicegate.application.rules.rule_notices import RuleNotices
from sluicegate.application.rules.rule_swap import RuleSwap
from sluicegate.application.rules.rules_snapshot import CurrentRules, RulesSnapshot
from sluicegate.domain.buckets.bucket_key import KeyFormat
from sluicegate.domain.errors import InvalidInputError, InvalidTypeError
from sluicegate.domain.rules.compiled_rules import CompiledRules, EndpointRules
from sluicegate.domain.rules.rule import RateLimitRule
from sluicegate.domain.rules.rule_book import RuleBook, Rules
from sluicegate.domain.rules.rule_book_entries import KillSwitch, Override
from sluicegate.runtime.mutex import fork_count, new_mutex

_LONGEST_S: Final = 366 * 86_400  # of a kill switch that ends by itself


class LiveRules:
    """Hold the rules, swap them, and switch them off and on. Safe to call from any thread.

    Args:
        rules: The first rules.
        key_format: How buckets are named.
        notifier: Publishes events and writes log lines.
        utc_now: The wall clock.
        without_claims: The name of a storage that cannot count calls in flight; empty: it can.
        enabled: False: everything is switched off for good, and nothing is said of it.
        followed: Other rules whose lists, overrides, policies and kill switches hold for these too; None: there are none.
        apart: See `derive`.

    Raises:
        InvalidInputError: If the rules are wrong, or the storage cannot count what they count.
    """

    def __init__(  # noqa: PLR0913 - collaborators and settings
        self,
        rules: Rules,
        key_format: KeyFormat,
        notifier: Notifier,
        utc_now: Callable[[], datetime],
        without_claims: str = "",
        *,
        enabled: bool = True,
        followed: "LiveRules | None" = None,
        apart: bool = False,
    ) -> None:
        self._without_claims = without_claims
        self._key_format = key_format
        self._notifier = notifier
        self._notices = RuleNotices(notifier)
        self._utc_now = utc_now
        self._enabled = enabled
        self._mutex = new_mutex()  # of the counts below
        self._turns = count(1)
        self._renewed_in = -1  # the process, as `fork_count` tells it, of which a thread compiles what is over
        self.changes = 0
        """How often other rules came into force."""
        self.refusals = 0
        """How often rules were refused."""
        self.last_error = ""
        """Why rules were refused the last time; empty once others came into force."""
        self.relatives: Relatives = Relatives() if followed is None else followed.relatives
        """The limiters that have these rules, or rules that follow them or are followed by them."""
        neighbours = self.relatives.neighbours(self, followed) if apart else Neighbours()
        self._swap = RuleSwap(
            RuleInputs(rules),
            key_format,
            utc_now,
            without_claims,
            enabled=enabled,
            taken=neighbours.taken,
            followed=None if followed is None else followed.current,
            followed_held=None if followed is None else followed.held,
        )
        self.held: Final[CurrentRules] = self._swap.held
        """What checks read, unless its `until` has passed; see `current`."""
        self.rules_beside_code: Final = self._swap.beside_code
        """Those that stand beside the code that they limit."""
        self._notices.switched(None, self.held.snapshot)
        neighbours.recompile()

    def recompile(self) -> None:
        """Compile the rules again, because there are others beside them."""
        self._swap.change(lambda inputs: inputs)

    def current(self) -> RulesSnapshot:
        """Return what checks read, without kill switches that have ended; those before while another thread compiles it."""
        held, process = self.held, fork_count()
        if not held.is_over or self._renewed_in == process:
            return held.snapshot
        failed: InvalidInputError | None = None
        before = now = held.snapshot
        self._renewed_in = process
        try:
            before, now = self._swap.renew()
        except InvalidInputError as error:  # what is followed has changed, and does not fit these rules
            failed = error
        finally:
            self._renewed_in = -1
        if failed is not None:
            self.refuse(failed)
        self._notices.switched(before, now)
        return held.snapshot

    def derive(self, rules: Rules, *, apart: bool = False) -> "LiveRules":
        """Return other rules for which the lists, overrides, policies and kill switches of these hold too, also later ones.

        Where they stand `apart`, a rule may get keys of its own; see `Neighbours`.

        Raises:
            InvalidInputError: If the rules are wrong.
        """
        parts = self._key_format, self._notifier, self._utc_now, self._without_claims
        return LiveRules(rules, *parts, enabled=self._enabled, followed=self, apart=apart)

    def add_beside_code(self, endpoint: str, rules: tuple[RateLimitRule | str, ...]) -> str:
        """Put rules into force that stand beside the code that they limit, and return what a check of them calls the endpoint.

        Args:
            endpoint: What users call the code: method and route, or a name. Different rules may be added for the same one.
            rules: Rules, names of policies, or rates. A policy is looked up again whenever rules are replaced.

        Raises:
            InvalidInputError: If a text is neither a policy's name nor a rate, or two rules would share a bucket.
        """
        return self._swap.add_beside_code(endpoint, rules)

    @property
    def beside_code(self) -> dict[str, tuple[RateLimitRule, ...]]:
        """The rules beside code that were added so far, by the endpoint as users call it."""
        return self.rules_beside_code.by_endpoint(self.current().book)

    @property
    def all_scopes(self) -> set[str]:
        """The scopes of all rules, of those beside code as well, and whether or not they are switched off."""
        declared = [*self.current().book.rules, *[rule for rules in self.beside_code.values() for rule in rules]]
        return {str(rule.scope) for rule in declared}

    def without_switches(self) -> CompiledRules:
        """Return the rules as they are without kill switches, which stop the counting and not the operators."""
        return self._swap.without_switches(self.current())

    @property
    def version(self) -> str:
        """The version of the rules in force; see `RuleBook.version`."""
        return self.held.snapshot.book.version

    @property
    def book(self) -> RuleBook:
        """The rules in force, as they were written."""
        return self.held.snapshot.book

    @property
    def switched_off(self) -> tuple[KillSwitch, ...]:
        """The kill switches that are thrown."""
        return self.current().switches

    @property
    def thrown(self) -> tuple[KillSwitch, ...]:
        """The kill switches that `switch_off` threw, without those of the rules file."""
        now = self._utc_now()
        return tuple([switch for switch in self.held.snapshot.inputs.thrown.values() if not switch.is_over(now)])

    def replace(self, rules: Rules) -> str:
        """Put other rules into force, and return their version. Buckets keep their tokens; see `token_bucket.convert`.

        Checks go on while the rules are compiled, and end with the rules that they began with. Of two replacements at once the
        one that began last holds, and both return its version.

        Raises:
            InvalidInputError: If the rules are wrong; those before stay in force.
        """
        turn = next(self._turns)
        before, now = self._swap.change(lambda inputs: inputs.with_rules(rules, turn))
        version = now.book.version
        changed = version != before.book.version
        with self._mutex:
            recovered, self.last_error = self.last_error, ""
            self.changes += changed
        if changed:
            self._notices.changed(version, before.book.version)
        elif recovered:
            self._notices.valid_again(version)
        self._notices.switched(before, now)
        return version

    def refuse(self, error: Exception) -> None:
        """Note that rules were refused before they came here, and tell it; once as long as the reason stays the same."""
        text = str(error)
        with self._mutex:
            if text == self.last_error:
                return
            self.refusals += 1
            self.last_error = text
        self._notices.refused(text, self.version)

    def warn(self, message: str) -> None:
        """Log a warning about where the rules come from."""
        self._notices.warn(message, self.version)

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

    @property
    def added_overrides(self) -> tuple[Override, ...]:
        """The overrides that were added while the limiter runs and have not ended."""
        return self.held.snapshot.inputs.added.in_force(self._utc_now())

    def override(self, override: Override) -> None:
        """Add an override to the rules in force, until it ends or is taken back; reloads of the rules keep it.

        It wins over one of the rules file for the same identifier.

        Raises:
            InvalidInputError: If no rule has the name that it gives, or the identifier is wrong.
        """
        self.named_rule(override.policy)
        self._swap.change(lambda inputs: inputs.with_added(inputs.added.with_one(override, self._utc_now())))

    def take_back_override(self, policy: str, identifier: str) -> bool:
        """Remove an override that was added, and return whether there was one."""
        added = self.held.snapshot.inputs.added
        if added.without(policy, identifier) is added:
            return False
        before, now = self._swap.change(lambda inputs: inputs.with_added(inputs.added.without(policy, identifier)))
        return now.inputs.added is not before.inputs.added

    def named_rule(self, policy: str) -> RateLimitRule:
        """Return the rule with a name of its own.

        Raises:
            InvalidInputError: If there is none.
        """
        policies = self.held.snapshot.book.policies
        rule = policies.get(policy)
        if rule is None:
            raise InvalidInputError(
                f"policy={policy!r:.80}: no rule has this name of its own; there are"
                f" {', '.join(sorted(policies)) or 'none'}"
            )
        return rule

    def warn_of_calls_in_flight(self, rules: EndpointRules) -> None:
        """Say now and then that a check holds nothing: who relies on it has no limit of calls in flight."""
        self._notices.warn_of_calls_in_flight(rules)

    def _switch(self, policy: str, switch: KillSwitch | None) -> None:
        before, now = self._swap.change(lambda inputs: inputs.with_switch(policy, switch, self._utc_now()))
        self._notices.switched(before, now)

    def _require_policy(self, policy: str) -> None:
        names = {rule.policy for rules in (*self.book.values(), *self.beside_code.values()) for rule in rules}
        if policy and policy not in names:
            raise InvalidInputError(
                f"policy={policy!r}: no rule has this name; there are {', '.join(sorted(names)) or 'none'}"
            )

    def __repr__(self) -> str:
        return f"LiveRules({self.held.snapshot.book!r}, switched_off={len(self.held.snapshot.switches)})"
