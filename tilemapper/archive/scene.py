"""A scene as it was listed: what is known of a raster without opening it."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from tilemapper.raster.secrets import public, scene_id

if TYPE_CHECKING:
    from tilemapper.archive.mosaic import Mosaic
    from tilemapper.archive.part import Part

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # and half characters
# What turns the direction of text around stands in honest names, too: it is only shown otherwise.
_UNSHOWN = re.compile(rf"{_CONTROL.pattern}|[\u202a-\u202e\u2066-\u2069]")

# Less, compressed, is hardly more than one block of pixels.
LARGE_BYTES = 16 * 10**6


@dataclass(frozen=True, slots=True)
class Scene:
    """One raster of an archive, as it was listed.

    path: as it is opened; may hold a signature, so it is neither stored nor shown: `name` is.
    relpath: below the folder or prefix it was found in, without suffix; of a list, below what all
    its lines share; of a catalog, below the item's id. version: what is known of its content
    without opening it: size, mtime and ctime in ns, or ETag. date: ISO, from the catalog or the
    name. bbox: west, south, east, north, from the catalog. fault: why it cannot be rendered,
    whatever the options. closed: there is no raster, as it is a folder that could not be listed, or
    ``absent``: a catalog's item without one. passes: the fault is its server's, and says nothing of
    it. name: what is shown, the path without secrets if nothing else. id: the key in the ledger.
    fields: more fields for the template; output: the output, whatever the template. mosaic: what a
    whole mosaic is made of. part: what is cut out of one; group: its mosaic's id. `misnamed` scenes
    have a fault.
    """

    path: str
    relpath: str
    size_bytes: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    etag: str | None = None
    date: str | None = None
    bbox: tuple[float, float, float, float] | None = None
    fault: str | None = None
    passes: bool = False
    closed: bool = False
    absent: bool = False
    shown: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    group: str | None = None
    mosaic: Mosaic | None = None
    part: Part | None = None
    name: str = field(init=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.shown or public(self.path)))
        object.__setattr__(self, "id", scene_id(self.path))

    @property
    def stem(self) -> str:
        """File name without folder and suffix."""
        return self.relpath.rpartition("/")[2]


def local_scene(path: str, relpath: str) -> Scene:
    """A scene on a disk; what is wrong with it already is told by its ``fault``."""
    if (wrong_name := misnamed(path, relpath)) is not None:
        return wrong_name
    dated = date_of(path.rpartition("/")[2])
    try:
        status = Path(path).stat()
    except OSError:
        fault = f"{path}: is a link to nothing, or cannot be looked at; restore the file"
        return Scene(path, relpath, date=dated, fault=fault)
    wrong: str | None = None
    if not stat.S_ISREG(status.st_mode):
        wrong = f"{path}: is a folder or a device, a raster file is needed; rename or exclude it"
    return Scene(
        path, relpath, status.st_size, status.st_mtime_ns, status.st_ctime_ns, None, dated,
        fault=wrong,
    )  # fmt: skip


def misnamed(path: str, relpath: str) -> Scene | None:
    """The scene of a name that nothing may be called by, with its fault; None for other names.

    It would break every list, log and report that it enters, or lead out of the output folder:
    in a store a key may be anything.
    """
    shown = printable(public(path))
    if _CONTROL.search(public(path) + relpath):
        line = f"{shown}: the name has control characters or bytes that are no text; rename it"
        return Scene(path, printable(relpath), fault=line)
    if ".." in relpath.split("/"):
        line = f"{shown}: the name has .. for a folder, which leads out of the outputs'; rename it"
        return Scene(path, relpath.replace("..", "%2E%2E"), fault=line)
    return None


def printable(text: str) -> str:
    """A text from outside with what steers a terminal, or lies about what it says, as escapes."""
    return _UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def is_large(scene: Scene) -> bool:
    """Whether a scene may have several blocks, as far as its size tells; if in doubt, it has."""
    return scene.part is None and (scene.size_bytes is None or scene.size_bytes >= LARGE_BYTES)


def bare(path: str) -> str:
    """A path without its suffix."""
    return os.path.splitext(path)[0]  # noqa: PTH122  100,000 of them, URLs among them


def date_of(name: str) -> str | None:
    """The first date in a name, 20260301 or 2026-03-01, in ISO's form; 31 April is none."""
    days = ("-".join(found.groups()) for found in _DATE.finditer(name))
    return next((day for day in days if day_of(day) is not None), None)


def day_of(text: object) -> date | None:
    """The day that a text from outside begins with, in ISO's form; None if that is none."""
    try:
        return date.fromisoformat(str(text)[:10])
    except ValueError:
        return None
