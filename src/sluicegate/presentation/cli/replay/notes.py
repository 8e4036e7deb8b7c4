"""What a replay hears from its limiter beside the answers: lists, rules in shadow mode, warnings."""

from sluicegate.domain.events import RateLimitEvent, RateLimitListed, RateLimitShadowDenied

_MAX_WARNINGS = 10


class CheckNotes:
    """An event bus that keeps what happened in the latest check."""

    inline = True

    def __init__(self) -> None:
        self.listed: RateLimitListed | None = None
        """The entry of an allow or deny list that decided; None if none did."""
        self.shadow_denials = 0
        """How many rules in shadow mode would have denied it."""

    def forget(self) -> None:
        """Begin another check."""
        self.listed = None
        self.shadow_denials = 0

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:
        """Return whether an event tells something that the answer does not."""
        return event_type is RateLimitListed or event_type is RateLimitShadowDenied

    def publish(self, event: RateLimitEvent, /) -> None:
        """Keep an event."""
        if isinstance(event, RateLimitListed):
            self.listed = event
        elif isinstance(event, RateLimitShadowDenied):
            self.shadow_denials += 1


class WarningNotes:
    """A logger that keeps each warning once: in a log's time, what is said once a second is said very often."""

    inline = True

    def __init__(self) -> None:
        self.messages: list[str] = []
        """The warnings, at most ten."""

    def debug(self, message: str, /, **context: object) -> None:
        """Leave it out."""

    def info(self, message: str, /, **context: object) -> None:
        """Leave it out."""

    def warning(self, message: str, /, **context: object) -> None:  # noqa: ARG002 - it differs each time
        """Keep a warning."""
        if message not in self.messages and len(self.messages) < _MAX_WARNINGS:
            self.messages.append(message)

    def error(self, message: str, /, **context: object) -> None:
        """Keep an error."""
        self.warning(message, **context)
