"""Decompress a zstd archive as it is read, in bounded memory, and notice when it was cut off."""

import io
from typing import TYPE_CHECKING, BinaryIO

import zstandard

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAX_WINDOW_BYTES = 1 << 27
"""What `zstd --long` needs; a hostile archive could ask for gigabytes."""

_CHUNK_BYTES = 1_024
"""How much is decompressed at a time. Four bytes can stand for a block of 128 KiB, so this much for 32 MiB."""


class ZstdStream(io.RawIOBase):
    """Read what an archive of one or more frames holds.

    Args:
        file: The archive.

    Raises:
        OSError: While reading, if it is broken.
        EOFError: While reading, if it ends within a frame.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        self._frame = self._decompressor.decompressobj()
        self._in_frame = False
        self._data = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read into a buffer and return how many bytes; 0 at the end."""
        while not self._data and self._decompress():
            pass
        target = memoryview(buffer).cast("B")
        length = min(len(target), len(self._data))
        target[:length] = self._data[:length]
        self._data = self._data[length:]
        return length

    def _decompress(self) -> bool:
        """Decompress a little more; return False at the end."""
        compressed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = self._decompressor.decompressobj()
            self._in_frame = False
        compressed = compressed or self._file.read(_CHUNK_BYTES)
        if not compressed:
            if self._in_frame:
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            return False
        self._in_frame = True
        try:
            self._data = memoryview(self._frame.decompress(compressed))
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from None
        return True
