"""Bytes on their way to a file, and the proof that they arrived."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from isal.isal_zlib import crc32

_CHUNK = 4 << 20


class Summed:
    """Writes on to a file, and keeps the checksum of all that it was given."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.crc32 = file, 0

    def write(self, data: bytes | memoryview) -> int:
        """As of the file."""
        self.crc32 = crc32(data, self.crc32)
        return self._file.write(data)


def file_crc32(path: Path) -> int:
    """Checksum of a file's bytes, in constant memory."""
    value = 0
    with path.open("rb", buffering=0) as src:
        while chunk := src.read(_CHUNK):
            value = crc32(chunk, value)
    return value
