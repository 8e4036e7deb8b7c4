"""Read CSV whose first line names the columns."""

import csv
from typing import cast

from sluicegate.presentation.cli.replay.formats.named_fields import RecordReader
from sluicegate.presentation.cli.replay.formats.record import LoggedRequest, MalformedLine, ReaderOptions

_DELIMITERS = ",;\t|"
_MIN_COLUMNS = 3  # time, client, request


class CsvReader:
    """Read one row a line; the first line is the header.

    Args:
        options: Identities may come from any column.

    Raises:
        InvalidInputError: If a column is given for an unknown role.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self._reader = RecordReader(options, self._value_at)
        self._columns: dict[str, int] = {}
        self._delimiter = ","

    def read(self, text: str) -> LoggedRequest | MalformedLine | None:
        """Read a line."""
        if not self._columns:
            text = text.removeprefix("\ufeff")
            self._delimiter = max(_DELIMITERS, key=text.count)
            self._columns = {name.strip(): number for number, name in enumerate(self._row(text))}
            return None
        if len(self._columns) < _MIN_COLUMNS:
            return MalformedLine("the first line does not name the columns of a CSV file")
        row = self._row(text)
        if len(row) != len(self._columns):
            return MalformedLine(f"{len(row)} columns, and the header has {len(self._columns)}")
        return self._reader.read(row)

    def _row(self, text: str) -> list[str]:
        rows = csv.reader((text.replace("\0", ""),), delimiter=self._delimiter)
        try:
            return next(rows)
        except (csv.Error, StopIteration):
            return []

    def _value_at(self, record: object, place: str) -> object:
        number = self._columns.get(place)
        row = cast("list[str]", record)
        return None if number is None or not row[number] else row[number]
