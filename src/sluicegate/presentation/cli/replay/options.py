"""The options of `sluicegate replay`, checked and put together."""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import msgspec

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.replay.formats.client_field import LoggedClients
from sluicegate.presentation.cli.replay.formats.record import ReaderOptions
from sluicegate.presentation.cli.replay.source.time_order import DEFAULT_REORDER_LINES

_PERCENTAGE = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,9})?%?")


class ReplayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for on the command line.

    Args:
        logs: The files; `-` is standard input.
        rules: The rules file; None: that of the environment.
        against: Another rules file to compare with.
        suggest: Whether to suggest limits.
        share: The percentage of honest-looking clients that a suggested limit may deny.
        window_s: The seconds in which a suggested bucket is full again.
        endpoints: Templates to suggest limits for.
        log_format: The format of all files; None: it is detected.
        fields: `ROLE=FIELD`: where JSON lines and CSV have what is asked for.
        identify: `SCOPE=FIELD`: the field that identifies a client by a scope.
        trusted_proxies: Networks of proxies, besides the private ones.
        top: Rows of each table, at least 0; 0: all.
        reorder_lines: How many requests one may stand too late to be put in order.
        as_json: Whether to print JSON.
        html: Where to write the page; None: nowhere.
    """

    logs: Sequence[str]
    rules: Path | None = None
    against: Path | None = None
    suggest: bool = False
    share: str = "1"
    window_s: int = 600
    endpoints: Sequence[str] = ()
    log_format: str | None = None
    fields: Sequence[str] = ()
    identify: Sequence[str] = ()
    trusted_proxies: Sequence[str] = ()
    top: int = 10
    reorder_lines: int = DEFAULT_REORDER_LINES
    as_json: bool = False
    html: Path | None = None

    def reader_options(self) -> ReaderOptions:
        """Return what the readers are told.

        Raises:
            InvalidInputError: If an option is not of the form that it needs, or a proxy is no network.
        """
        return ReaderOptions(
            LoggedClients(self.trusted_proxies), _pairs("field", self.fields), _pairs("identify", self.identify)
        )

    def share_fraction(self) -> Fraction:
        """Return the share that may be denied.

        Raises:
            InvalidInputError: If it is not a number.
        """
        if _PERCENTAGE.fullmatch(self.share) is None:
            raise InvalidInputError(f"share={self.share[:40]!r}: expected a percentage, such as 1 or 0.5")
        return Fraction(self.share.removesuffix("%")) / 100


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise InvalidInputError(f"{option}={text!r}: expected NAME=FIELD")
        if name in found:
            raise InvalidInputError(f"{option}={text!r}: {name} is given twice")
        found[name] = value
    return found
