"""The loggers: nothing lost, nothing forged, no clash of names."""

import logging

import pytest
import structlog

from sluicegate import StdlibLogger
from sluicegate.infrastructure.structlog_logger import StructlogLogger


def test_the_standard_librarys_logger_gets_message_and_context(caplog: pytest.LogCaptureFixture) -> None:
    """A line is `message key=value`; the context is on the record for handlers that want it."""
    logger = StdlibLogger("sluicegate.test")
    with caplog.at_level(logging.DEBUG, logger="sluicegate.test"):
        logger.debug("One.", endpoint="GET /")
        logger.info("Two.")
        logger.warning("Three.", event="a name that structlog knows", message="and one that logging knows")
        logger.error("Four.", n=4)
    assert [record.levelname for record in caplog.records] == ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert caplog.messages[0] == "One. endpoint='GET /'"
    assert caplog.records[3].context == {"n": 4}  # type: ignore[attr-defined]


def test_a_line_break_in_a_value_forges_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """CR, LF and escape sequences are written as they are spelt."""
    with caplog.at_level(logging.WARNING, logger="sluicegate.test"):
        StdlibLogger("sluicegate.test").warning("Odd.", endpoint="GET /\r\nERROR all is lost\x1b[31m")
    assert "\n" not in caplog.messages[0]
    assert "\x1b" not in caplog.messages[0]


def test_a_level_that_is_off_is_known() -> None:
    """The limiter asks before it builds a line."""
    logging.getLogger("sluicegate.quiet").setLevel(logging.ERROR)
    logger = StdlibLogger("sluicegate.quiet")
    assert not logger.enabled("warning")
    assert logger.enabled("error")
    assert repr(logger) == "StdlibLogger(name='sluicegate.quiet')"


def test_structlog_gets_the_same() -> None:
    """Levels, message and context arrive as structlog has them."""
    with structlog.testing.capture_logs() as lines:
        logger = StructlogLogger()
        logger.debug("One.", endpoint="GET /")
        logger.info("Two.")
        logger.warning("Three.")
        logger.error("Four.", n=4)
    assert [line["log_level"] for line in lines] == ["debug", "info", "warning", "error"]
    assert lines[0] == {"event": "One.", "endpoint": "GET /", "log_level": "debug"}
    assert repr(logger) == "StructlogLogger()"
