"""What observers are told of kill switches."""

from sluicegate.application.notifier import Notifier
from sluicegate.application.rules.rules_snapshot import RulesSnapshot
from sluicegate.domain.events import RateLimitSwitched
from sluicegate.domain.rules.rule_book_entries import KillSwitch


def announce_switches(
    notifier: Notifier, version: str, before: tuple[KillSwitch, ...], after: tuple[KillSwitch, ...]
) -> None:
    """Tell of each kill switch that was thrown or has ended.

    Args:
        notifier: Publishes the events and writes the lines.
        version: That of the rules in force.
        before: The switches that were thrown.
        after: Those that are.
    """
    for off, switches, others in ((True, after, before), (False, before, after)):
        for switch in switches:
            if switch not in others:
                _announce(notifier, version, switch, off=off)


def warn_if_everything_is_off(notifier: Notifier, snapshot: RulesSnapshot) -> None:
    """Say now and then that nothing is limited: a kill switch that was forgotten must not stay unnoticed."""
    if any(not switch.policies for switch in snapshot.switches):
        notifier.warn_throttled("kill_switch", "The kill switch is thrown: nothing is limited.")


def _announce(notifier: Notifier, version: str, switch: KillSwitch, *, off: bool) -> None:
    notifier.log(
        "warning",
        "Rate limit rules are switched off." if off else "Rate limit rules hold again.",
        policies=switch.policies or "all",
        until=switch.until and switch.until.isoformat(),
        reason=switch.reason,
    )
    if notifier.has_listener(RateLimitSwitched):
        notifier.publish(
            RateLimitSwitched(
                policies=switch.policies, off=off, until=switch.until, reason=switch.reason, rules_version=version
            )
        )
