"""What logs and listeners are told of the rules: changes, refusals, and kill switches."""

from collections.abc import Callable

from sluicegate.application.notifier import Notifier
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.application.rules.switch_news import announce_switches
from sluicegate.domain.events import RateLimitEvent, RateLimitRulesChanged, RateLimitRulesRefused
from sluicegate.domain.rules.endpoint_rules import EndpointRules


class RuleNotices:
    """Write the log lines and publish the events.

    Args:
        notifier: Gets them.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    def changed(self, version: str, before: str) -> None:
        """Tell that rules of another version came into force."""
        self._notifier.log("info", "Rate limit rules changed.", rules_version=version, previous_version=before)
        self._publish(
            RateLimitRulesChanged, lambda: RateLimitRulesChanged(rules_version=version, previous_version=before)
        )

    def valid_again(self, version: str) -> None:
        """Tell that the rules in force were given again, after others had been refused."""
        self._notifier.log("info", "Rate limit rules are valid again.", rules_version=version)

    def refused(self, error: str, version: str) -> None:
        """Tell that rules were refused, and those of a version stay in force."""
        self._notifier.log(
            "error", "Rate limit rules refused; those before stay in force.", error=error, rules_version=version
        )
        self._publish(RateLimitRulesRefused, lambda: RateLimitRulesRefused(rules_version=version, error=error))

    def warn(self, message: str, version: str) -> None:
        """Log a warning about where the rules come from."""
        self._notifier.log("warning", message, rules_version=version)

    def switched(self, before: RulesSnapshot | None, after: RulesSnapshot) -> None:
        """Tell which kill switches have been thrown and which have ended between two snapshots; None: there was none before."""
        was = () if before is None else before.own_switches
        announce_switches(self._notifier, after.book.version, was, after.own_switches)

    def warn_of_calls_in_flight(self, rules: EndpointRules) -> None:
        """Say now and then that a check of some rules holds nothing."""
        self._notifier.warn_throttled(
            f"in_flight:{rules.endpoint}",
            "A check does not count calls in flight, because nobody would give back what it took; use hold, acquire or reserve.",
            endpoint=rules.endpoint,
        )

    def _publish(self, event_type: type[RateLimitEvent], event: Callable[[], RateLimitEvent]) -> None:
        if self._notifier.has_listener(event_type):
            self._notifier.publish(event())
