"""TOML documents that come from outside, bounded before they are parsed; known to all rooms.

`tomllib` needs time that grows with the square of a dotted name's parts: one line of 200 KB holds
it for seconds. What no document of ours comes near is refused before, in time that grows with
the document.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 1 << 22
# Parts of a name and brackets in brackets, each; ours have three. Together they bound the depth
# of what is parsed well below Python's limit of recursion.
DEEPEST: Final = 20
# Dots and brackets in these mean nothing. None of them can fail once it has begun, and none gives
# a character back, so that what is never closed costs one pass too.
_MEANS_NOTHING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5})?'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5})?"
    r'|"(?:[^"\\\n]|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+",
    re.DOTALL,
)


def read(path: Path) -> dict[str, Any]:
    """The document of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, no UTF-8, no TOML, or nested deeper than `DEEPEST`.
    """
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES} bytes")
    return loads(data.decode())


def loads(text: str) -> dict[str, Any]:
    """The document of a text; ValueError as `read` says, but for its size."""
    _check_depth(_MEANS_NOTHING.sub("", text))
    try:
        return tomllib.loads(text)
    except RecursionError as error:  # of a caller that stands near the limit itself
        raise ValueError("nested too deep") from error


def _check_depth(bare: str) -> None:
    """Raises ValueError for names or brackets beyond `DEEPEST`; ``bare`` is without strings."""
    # Between these stands one name or one value, and a value has at most one dot.
    parts = 1 + max(piece.count(".") for piece in re.split(r"[=,\[\]{}\n]", bare))
    if parts > DEEPEST:
        raise ValueError(f"a name of {parts} parts, {DEEPEST} are the most")
    depth = 0
    for bracket in re.finditer(r"[\[\]{}]", bare):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > DEEPEST:
            raise ValueError(f"brackets nested deeper than {DEEPEST}")
