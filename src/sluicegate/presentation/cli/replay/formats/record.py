"""What a line of an access log tells, whatever its format."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from sluicegate.presentation.cli.replay.formats.client_field import LoggedClients

AGENT_UNKNOWN = 0
"""The log does not tell the user agent."""
AGENT_NONE = 1
"""The client named none."""
AGENT_ROBOT = 2
"""It names itself a robot or a program."""
AGENT_OTHER = 3
"""It names something else: as a rule a browser."""


class LoggedRequest(msgspec.Struct, frozen=True, gc=False):
    """The request of a line.

    Args:
        time_us: Its time in microseconds since 1970.
        client: The client's address as rules count it, or what the log has in its place.
        method: Its method.
        path: Its decoded path, without the query.
        status: The answer's status; 0 if the log does not tell.
        agent: `AGENT_UNKNOWN`, `AGENT_NONE`, `AGENT_ROBOT` or `AGENT_OTHER`.
        names: What the fields of `ReaderOptions.identify` say, in their order; empty where one says nothing.
    """

    time_us: int
    client: str
    method: str
    path: str
    status: int = 0
    agent: int = AGENT_UNKNOWN
    names: tuple[str, ...] = ()


class MalformedLine(msgspec.Struct, frozen=True, gc=False):
    """A line without a readable request.

    Args:
        reason: What is wrong with it, for people.
    """

    reason: str


class ReaderOptions(msgspec.Struct, frozen=True):
    """What readers of all formats are told.

    Args:
        clients: Finds the client among the addresses of a line.
        fields: Where JSON lines and CSV have what is asked for: `time`, `client`, `forwarded`, `method`, `path`, `request`,
            `status`, `agent`. What is not named is looked for under the usual names.
        identify: A field of the format for each scope whose identifier the log tells.
    """

    clients: LoggedClients
    fields: Mapping[str, str] = {}
    identify: Mapping[str, str] = {}


class LineReader(Protocol):
    """Read the lines of one file, which may begin with a line that names the fields."""

    def read(self, text: str) -> LoggedRequest | MalformedLine | None:
        """Read a line without its end. Return None for one that is no request: a header, a directive. No input raises."""
        ...
