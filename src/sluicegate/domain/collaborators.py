"""What a limiter is given beside rules and storage. A mistake is said when the limiter is built, not by its first check."""

import logging
from collections.abc import Callable
from datetime import datetime

from sluicegate.domain.errors import InvalidInputError, InvalidTypeError

_LOGGER_METHODS = ("debug", "info", "warning", "error")


def require_observers(event_bus: object, logger: object) -> None:
    """Check that a bus and a logger can be called as a limiter calls them.

    Raises:
        InvalidTypeError: If one is a class, or lacks a method, or is a logger of `logging`, which takes no context.
    """
    if event_bus is not None:
        _require_methods("event_bus", event_bus, ("listens", "publish"), "an EventBusProtocol")
    if logger is None:
        return
    if isinstance(logger, logging.Logger | logging.LoggerAdapter):
        name = logger.name if isinstance(logger, logging.Logger) else "app"
        raise InvalidTypeError(
            f"logger={logger!r:.80}: takes no context; expected StdlibLogger({name!r}), which writes to it"
        )
    _require_methods("logger", logger, _LOGGER_METHODS, "a LoggerProtocol")


def require_clock(clock: object) -> None:
    """Check that a clock tells whole microseconds. One that the system cannot read is left to the failure policy.

    Raises:
        InvalidTypeError: If it is a class or has no `now_us`, or that returns something else.
    """
    _require_methods("clock", clock, ("now_us",), "a Clock")
    try:
        now_us: object = clock.now_us()  # type: ignore[attr-defined]
    except OSError:  # it is a clock, and out of order
        return
    if not isinstance(now_us, int) or isinstance(now_us, bool):
        raise InvalidTypeError(f"clock={clock!r:.80}: now_us() returned {now_us!r:.80}; expected whole microseconds")


def require_wall_clock(wall_clock: Callable[[], datetime]) -> Callable[[], datetime]:
    """Return a wall clock that tells instants.

    Raises:
        InvalidInputError: If what it returns has no time zone: such a time cannot be compared with an `until`.
        InvalidTypeError: If it is no function, or returns something else.
    """
    if not callable(wall_clock):
        raise InvalidTypeError(f"wall_clock={wall_clock!r:.80}: expected a function that returns a datetime")
    now: object = wall_clock()
    if not isinstance(now, datetime):
        raise InvalidTypeError(f"wall_clock={wall_clock!r:.80}: returned {now!r:.80}; expected a datetime")
    if now.utcoffset() is None:
        raise InvalidInputError(
            f"wall_clock={wall_clock!r:.80}: returned a time without a zone; expected datetime.now(UTC) for example"
        )
    return wall_clock


def _require_methods(field: str, value: object, methods: tuple[str, ...], kind: str) -> None:
    if isinstance(value, type):
        raise InvalidTypeError(f"{field}={value.__name__}: expected {kind}, an instance and not the class")
    for method in methods:
        # An object with `__getattr__`, such as a proxy of structlog, finds its methods when they are called.
        if not hasattr(type(value), "__getattr__") and not callable(getattr(value, method, None)):
            raise InvalidTypeError(f"{field}={value!r:.80}: expected {kind} with `{method}`")
