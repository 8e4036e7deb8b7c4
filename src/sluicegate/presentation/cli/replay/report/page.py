"""Write the report of a replay as one HTML page that loads nothing from elsewhere.

Styles, scripts and figures are in the page. A content security policy names their hashes, so that nothing else runs, whatever a
client wrote into the log; jinja2 escapes all texts, and what the script reads is JSON without `<`.
"""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.replay.report.builder import iso
from sluicegate.presentation.cli.replay.report.figures import ReplayReport
from sluicegate.presentation.cli.replay.report.summary import summary_lines
from sluicegate.presentation.cli.terminal import printable
from sluicegate.presentation.pages.assets import (
    BASE_STYLES,
    CHART_LIBRARY,
    CHART_LICENCE,
    CHART_STYLES,
    CHARTS,
    read_asset,
    shared_asset,
)

_HEAT_LEVELS = 5


def write_page(report: ReplayReport, path: Path) -> None:
    """Write the page.

    Args:
        report: The report.
        path: The file to write.

    Raises:
        InvalidInputError: If it cannot be written, or the extra is missing.
    """
    text = render_page(report)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"html={str(path)!r}: cannot be written: {error.strerror or error}") from None


def render_page(report: ReplayReport) -> str:
    """Return the page.

    Raises:
        InvalidInputError: If the extra is missing.
    """
    try:
        import jinja2  # noqa: PLC0415 - part of an extra
    except ModuleNotFoundError:
        raise InvalidInputError("html: needs more parts: pip install 'sluicegate[cli]'") from None
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Callable[..., object]] = {
        "count": _count, "share": _share, "time": _time, "text": printable, "heat": _heat, "seconds": _seconds,
        "instant": _instant,
    }  # fmt: skip
    environment.filters.update(filters)  # pyright: ignore[reportCallIssue, reportArgumentType]
    styles = [shared_asset(CHART_STYLES), shared_asset(BASE_STYLES), _asset("page.css")]
    scripts = [shared_asset(CHART_LIBRARY), shared_asset(CHARTS), _asset("page.js")]
    return environment.from_string(_asset("page.html.j2")).render(
        report=report,
        suggestion=report.suggestion,
        summary=[line for line in summary_lines(report) if not line.is_sample],
        styles=styles,
        scripts=scripts,
        policy=_content_security_policy(styles, scripts),
        data=_safe_json(report),
        licence=shared_asset(CHART_LICENCE),
    )


def _asset(name: str) -> str:
    return read_asset("sluicegate.presentation.cli.replay.report", name)


def _content_security_policy(styles: list[str], scripts: list[str]) -> str:
    return (
        f"default-src 'none'; style-src {' '.join(map(_hash, styles))}; script-src {' '.join(map(_hash, scripts))};"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _safe_json(report: ReplayReport) -> str:
    """Return what the charts need as JSON that can stand in a script element."""
    suggestion = report.suggestion
    value = {
        "timeline": report.timeline,
        "needs": report.needs,
        "frontiers": [] if suggestion is None else [one for one in suggestion.endpoints if one.frontier],
    }
    text = msgspec.json.encode(value).decode("utf-8", "backslashreplace")
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _count(number: int) -> str:
    return f"{number:,}"


def _share(share: float) -> str:
    return f"{share:.1%}"


def _time(iso: str | None) -> str:
    return "-" if iso is None else iso.replace("T", " ").removesuffix("Z")


def _instant(seconds: int) -> str:
    return _time(iso(seconds * 1_000_000))[:16]


def _seconds(seconds: int) -> str:
    for length, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds % length == 0:
            return f"{seconds // length:,} {name}{'' if seconds == length else 's'}"
    return f"{seconds:,} second{'' if seconds == 1 else 's'}"


def _heat(count: int, most: int) -> int:
    """Return the shade of a cell, 0 (nothing) to 5, by the logarithm of the count."""
    if count == 0:
        return 0
    return 1 + (_HEAT_LEVELS - 1) * (count.bit_length() - 1) // max(1, most.bit_length() - 1)
