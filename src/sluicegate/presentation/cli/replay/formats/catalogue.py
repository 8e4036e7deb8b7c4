"""The formats by name, and which of them a file is in."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from sluicegate.domain.errors import InvalidInputError
from sluicegate.presentation.cli.replay.formats.combined import IDENTITY_FIELDS, CombinedReader
from sluicegate.presentation.cli.replay.formats.csv_table import CsvReader
from sluicegate.presentation.cli.replay.formats.json_lines import JsonLinesReader
from sluicegate.presentation.cli.replay.formats.load_balancers import AlbReader, HaproxyReader
from sluicegate.presentation.cli.replay.formats.record import LineReader, LoggedRequest, ReaderOptions
from sluicegate.presentation.cli.replay.formats.w3c import W3cReader


class LogFormat(msgspec.Struct, frozen=True):
    """A format.

    Args:
        name: What `--format` calls it.
        description: Who writes it.
        reader: Builds a reader for one file.
        identity_fields: The fields that may identify a client by another scope than its address; None: any that a log has.
    """

    name: str
    description: str
    reader: Callable[[ReaderOptions], LineReader]
    identity_fields: tuple[str, ...] | None = None

    def open(self, options: ReaderOptions) -> LineReader:
        """Return a reader for one file.

        Raises:
            InvalidInputError: If the options name a field that the format does not have.
        """
        for scope, field in options.identify.items():
            if self.identity_fields is not None and field not in self.identity_fields:
                known = ", ".join(self.identity_fields) or "none besides the address"
                raise InvalidInputError(f"identify='{scope}={field}': the format {self.name} has the fields {known}")
        return self.reader(options)


FORMATS: Mapping[str, LogFormat] = {
    one.name: one
    for one in (
        LogFormat("combined", "nginx and Apache, Common or Combined", CombinedReader, IDENTITY_FIELDS),
        LogFormat("json", "JSON lines: Caddy, Traefik, nginx", JsonLinesReader),
        LogFormat("alb", "AWS application and classic load balancers", AlbReader, ("domain",)),
        LogFormat("w3c", "W3C: IIS, CloudFront", W3cReader),
        LogFormat("haproxy", "HAProxy's httplog", HaproxyReader, ()),
        LogFormat("csv", "CSV with a header line", CsvReader),
    )
}
"""The formats that are known, in the order in which they are tried."""


def known_formats() -> str:
    """Return the names of the formats and who writes them, for an error message."""
    return "; ".join(f"{one.name} ({one.description})" for one in FORMATS.values())


def format_named(name: str) -> LogFormat:
    """Return a format.

    Raises:
        InvalidInputError: If there is none of that name.
    """
    if name not in FORMATS:
        raise InvalidInputError(f"format={name!r}: expected one of {known_formats()}")
    return FORMATS[name]


def detect(lines: Sequence[str], options: ReaderOptions) -> LogFormat | None:
    """Return the format in which most of some lines can be read; None if none of them can be read in any."""
    best, most = None, 0
    for one in FORMATS.values():
        reader = one.reader(options)
        readable = sum(isinstance(reader.read(line), LoggedRequest) for line in lines)
        if readable > most:
            best, most = one, readable
    return best
