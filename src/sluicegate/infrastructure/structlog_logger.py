"""A logger for applications that use structlog."""

from typing import Any

import structlog


class StructlogLogger:
    """Write log lines with structlog and the application's processors.

    Args:
        logger: A structlog logger; None: `structlog.get_logger("sluicegate")`.
    """

    def __init__(self, logger: Any = None) -> None:  # noqa: ANN401 - structlog's loggers have no common static type
        self._logger = structlog.get_logger("sluicegate") if logger is None else logger

    def debug(self, message: str, /, **context: object) -> None:
        """Write a line for developers."""
        self._logger.debug(message, **context)

    def info(self, message: str, /, **context: object) -> None:
        """Write a line that needs no action."""
        self._logger.info(message, **context)

    def warning(self, message: str, /, **context: object) -> None:
        """Write a line about a problem that the limiter handled."""
        self._logger.warning(message, **context)

    def error(self, message: str, /, **context: object) -> None:
        """Write a line about something that failed."""
        self._logger.error(message, **context)

    def __repr__(self) -> str:
        return "StructlogLogger()"
