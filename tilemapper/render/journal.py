"""The journal of a render: one checksummed line for each finished block."""

from __future__ import annotations

import contextlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Receipt:
    """What a worker hands back for a finished block: all that resume and finish need of it.

    Attributes:
        block: the block's name.
        files: sha256 of each file in the block's folder.
        pixels: sha256 of the full-resolution pixels and mask, in rows of file blocks, of each layer
            whose pixels are to be compared at the end.
        any_valid, any_invalid: whether such pixels occur.
        tiles: how many tiles were run.
        disagreement: sum of squared differences between overlapping predictions, and their count.
        seconds: wall time of the block.
        batches: tiles a call; several where memory ran out meanwhile, none where no tile was run.
    """

    block: str
    files: dict[str, str]
    pixels: dict[str, str]
    any_valid: bool
    any_invalid: bool
    tiles: int = 0
    disagreement: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    batches: tuple[int, ...] = ()


def read_journal(path: Path) -> list[Receipt]:
    """The receipts of a journal, without lines that are torn, damaged or of another version."""
    receipts = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            check, _, body = line.partition(b" ")
            if check == f"{zlib.crc32(body):08x}".encode():
                # A line of another version, whole as it is: its block is rendered again.
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    fields = json.loads(body)
                    for name in fields.keys() & {"disagreement", "batches"}:
                        fields[name] = tuple(fields[name])
                    receipts.append(Receipt(**fields))
    return receipts
