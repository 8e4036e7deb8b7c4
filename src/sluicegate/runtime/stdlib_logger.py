"""The default logger: the standard library's `logging`, under the name `sluicegate`."""

import logging

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class StdlibLogger:
    """Write log lines as `message key=value …` with `logging`, as the application has configured it.

    Args:
        name: The name of the `logging` logger to use.
    """

    def __init__(self, name: str = "sluicegate") -> None:
        self._logger = logging.getLogger(name)

    def enabled(self, level: str) -> bool:
        """Return whether a line at this level (`debug`, `info`, `warning`, `error`) would be written."""
        return self._logger.isEnabledFor(_LEVELS[level])

    def debug(self, message: str, /, **context: object) -> None:
        """Write a line for developers."""
        self._write(logging.DEBUG, message, context)

    def info(self, message: str, /, **context: object) -> None:
        """Write a line that needs no action."""
        self._write(logging.INFO, message, context)

    def warning(self, message: str, /, **context: object) -> None:
        """Write a line about a problem that the limiter handled."""
        self._write(logging.WARNING, message, context)

    def error(self, message: str, /, **context: object) -> None:
        """Write a line about something that failed."""
        self._write(logging.ERROR, message, context)

    def _write(self, level: int, message: str, context: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            # Values are written with %r, so a CR, LF or escape sequence in one cannot forge a second log line.
            fields = " ".join(f"{name}={value!r}" for name, value in context.items())
            self._logger.log(level, "%s %s", message, fields, extra={"context": context})

    def __repr__(self) -> str:
        return f"StdlibLogger(name={self._logger.name!r})"
