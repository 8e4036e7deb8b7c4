"""Read W3C extended log files: IIS, and CloudFront's standard logs. Lines that begin with `#` say what the fields are."""

from urllib.parse import unquote

from sluicegate.presentation.cli.replay.formats.record import (
    AGENT_UNKNOWN,
    LoggedRequest,
    MalformedLine,
    ReaderOptions,
)
from sluicegate.presentation.cli.replay.formats.request_line import agent_kind, read_target
from sluicegate.presentation.cli.replay.formats.timestamps import any_time_us

_FORWARDED = ("x-forwarded-for", "cs(x-forwarded-for)")
_REQUIRED = ("date", "time", "c-ip", "cs-method", "cs-uri-stem")


class W3cReader:
    """Read lines whose fields a `#Fields:` line names. Instants are in UTC.

    CloudFront separates fields with tabs and writes spaces as `%20`; IIS separates them with spaces and writes `+`.

    Args:
        options: Identities may come from any field, such as `cs-username`.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self._clients = options.clients
        self._identify = tuple(options.identify.values())
        self._columns: dict[str, int] = {}

    def read(self, text: str) -> LoggedRequest | MalformedLine | None:
        """Read a line."""
        if text.startswith("#"):
            name, _, value = text.partition(":")
            if name.lower() == "#fields":
                self._columns = {field.lower(): number for number, field in enumerate(value.split())}
            return None
        if not self._columns:
            return MalformedLine("no #Fields line before it")
        missing = [field for field in _REQUIRED if field not in self._columns]
        if missing:
            return MalformedLine(f"the #Fields line does not name {', '.join(missing)}")
        fields = text.split("\t") if "\t" in text else text.split(" ")
        if len(fields) != len(self._columns):
            return MalformedLine(f"{len(fields)} fields, and the #Fields line names {len(self._columns)}")
        return self._request(fields)

    def _request(self, fields: list[str]) -> LoggedRequest | MalformedLine:
        columns = self._columns
        moment = f"{fields[columns['date']]} {fields[columns['time']]}"
        time_us = any_time_us(moment)
        if time_us is None:
            return MalformedLine(f"no such time: {moment[:40]!r}")
        forwarded = next((self._field(fields, name) for name in _FORWARDED if name in columns), "")
        client = self._clients.client(fields[columns["c-ip"]], forwarded)
        if client is None:
            return MalformedLine("no client's address")
        target = read_target(fields[columns["cs-method"]], fields[columns["cs-uri-stem"]])
        if target is None:
            return MalformedLine("no method and path")
        status = self._field(fields, "sc-status")
        return LoggedRequest(
            time_us,
            client,
            *target,
            int(status) if len(status) == 3 and status.isdecimal() else 0,  # noqa: PLR2004 - digits of a status
            agent_kind(self._field(fields, "cs(user-agent)")) if "cs(user-agent)" in columns else AGENT_UNKNOWN,
            tuple(self._field(fields, field.lower()) for field in self._identify),
        )

    def _field(self, fields: list[str], name: str) -> str:
        number = self._columns.get(name)
        if number is None or fields[number] == "-":
            return ""
        return unquote(fields[number].replace("+", " "))
