"""What a replay learns from its limiter besides the answers: list entries, shadow denials, warnings."""

from sluicegate.domain.events import RateLimitEvent, RateLimitListed, RateLimitShadowDenied

_MAX_WARNINGS = 10


class CheckObserver:
    """An event bus that records the events of the latest check."""

    inline = True

    def __init__(self) -> None:
        self.listed: RateLimitListed | None = None
        """The event of the allow or deny list that decided; None if neither did."""
        self.shadow_denials: list[str] = []
        """The policies in shadow mode that would have denied the check."""

    def clear(self) -> None:
        """Forget the latest check. Call it before each one."""
        self.listed = None
        self.shadow_denials.clear()

    def listens(self, event_type: type[RateLimitEvent], /) -> bool:
        """Return whether a type of event is recorded: those that tell more than the answer does."""
        return event_type is RateLimitListed or event_type is RateLimitShadowDenied

    def publish(self, event: RateLimitEvent, /) -> None:
        """Record an event."""
        if isinstance(event, RateLimitListed):
            self.listed = event
        elif isinstance(event, RateLimitShadowDenied):
            self.shadow_denials.append(event.policy)


class WarningCollector:
    """A logger that keeps each warning once. At most one a second in the log's time would still be very many."""

    inline = True

    def __init__(self) -> None:
        self.messages: list[str] = []
        """The warnings and errors, at most ten."""

    def debug(self, message: str, /, **context: object) -> None:
        """Ignore it."""

    def info(self, message: str, /, **context: object) -> None:
        """Ignore it."""

    def warning(self, message: str, /, **context: object) -> None:  # noqa: ARG002 - the context differs each time
        """Keep the message."""
        if message not in self.messages and len(self.messages) < _MAX_WARNINGS:
            self.messages.append(message)

    def error(self, message: str, /, **context: object) -> None:
        """Keep the message."""
        self.warning(message, **context)
