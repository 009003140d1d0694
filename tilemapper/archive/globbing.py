"""Globs on a disk as a source: which scenes one finds, and what is no glob though it looks so."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tilemapper.archive.job import RASTER_SUFFIXES
from tilemapper.archive.scene import Scene, bare, local_scene

# What lies beside rasters: their masks, overviews, statistics and places, and what tells of them.
BESIDE = (
    ".msk", ".ovr", ".xml", ".txt", ".lst", ".json", ".geojson", ".csv", ".md", ".html", ".prj",
    ".tfw", ".tifw", ".jgw", ".jpgw", ".pgw", ".pngw", ".j2w", ".wld",
)  # fmt: skip
_ESCAPED = re.compile(r"\[([*?\[])\]")  # what `glob.escape` makes of what begins a pattern


def is_glob(named: str) -> bool:
    """Whether a local path is a pattern: no file of that name is there, and not all is escaped."""
    return glob.has_magic(_ESCAPED.sub("", named)) and not os.path.lexists(named)


def literal(named: str) -> str:
    """The path that is meant by one that is no glob: its folder may have been escaped."""
    return named if os.path.lexists(named) else _ESCAPED.sub(r"\1", named)


def globbed(pattern: str) -> Iterator[Scene]:
    """The files that match, without folders and what only lies beside rasters."""
    plain = re.match(rf"(?:{_ESCAPED.pattern}|[^*?\[])*", pattern)
    fixed = _ESCAPED.sub(r"\1", plain[0] if plain else "").rpartition("/")[0]
    # Named by its ending, such a file is wanted.
    aside = tuple(ending for ending in BESIDE if not pattern.lower().endswith(ending))
    for path in _matching(pattern):
        name = path.lower()
        if name.endswith(aside) or (Path(path).is_dir() and not name.endswith(RASTER_SUFFIXES)):
            continue
        yield local_scene(path, bare(path[len(fixed) :].lstrip("/")))


def _matching(pattern: str) -> Iterator[str]:
    """What a glob finds. Links to folders are followed, but none that leads back to where it lies.

    `glob` itself follows that 40 times over, and two of them in one folder for ever.
    """
    head, deep, tail = pattern.partition("/**/")
    if not deep and pattern.endswith("/**"):
        head, deep, tail = pattern.removesuffix("/**"), "/**/", "*"
    if not deep:
        yield from glob.iglob(pattern, recursive=True)  # noqa: PTH207  takes absolute patterns
        return
    for top in glob.iglob(head or "/", recursive=True):  # noqa: PTH207
        for folder in _folders(top, frozenset()):
            yield from _matching(f"{glob.escape(folder.rstrip('/'))}/{tail}")


def _folders(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """A folder and those below it, hidden ones left out; ``above``: device and inode of each."""
    with contextlib.suppress(OSError):
        status = os.stat(folder)  # noqa: PTH116  100,000 of them: no Path for each
        own = status.st_dev, status.st_ino
        if own in above:
            return
        yield folder
        with os.scandir(folder) as entries:
            below = [e.path for e in entries if not e.name.startswith(".") and _is_folder(e)]
        for path in below:
            yield from _folders(path, above | {own})


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or leads to one; none is a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False
