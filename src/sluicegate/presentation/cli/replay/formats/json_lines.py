"""Read JSON lines: Caddy, Traefik, nginx with a JSON `log_format`, and any other with its fields named."""

from typing import cast

import msgspec

from sluicegate.presentation.cli.replay.formats.named_fields import RecordReader
from sluicegate.presentation.cli.replay.formats.record import LoggedRequest, MalformedLine, ReaderOptions


class JsonLinesReader:
    """Read one JSON object a line.

    Args:
        options: Identities may come from any field; `request.headers.Authorization` leads into objects.

    Raises:
        InvalidInputError: If a field is given for an unknown role.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self._reader = RecordReader(options, _value_at)
        self._decoder = msgspec.json.Decoder()

    def read(self, text: str) -> LoggedRequest | MalformedLine:
        """Read a line."""
        try:
            record = self._decoder.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            return MalformedLine(f"not JSON: {error}")
        if not isinstance(record, dict):
            return MalformedLine("not a JSON object")
        return self._reader.read(cast("dict[str, object]", record))


def _value_at(record: object, place: str) -> object:
    value: object = record
    if isinstance(value, dict) and place in value:  # a name may contain a dot
        value = cast("dict[str, object]", value)[place]
    else:
        for name in place.split("."):
            if not isinstance(value, dict):
                return None
            value = cast("dict[str, object]", value).get(name)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return items[0] if items else None
    return value  # pyright: ignore[reportUnknownVariableType]
