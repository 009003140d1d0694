"""Scene discovery: from what a job names to a list of scenes, without opening one of them."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemapper.archive import remote, stac_source
from tilemapper.archive.job import RASTER_SUFFIXES, Source
from tilemapper.archive.secrets import public, redacted, scene_id
from tilemapper.errors import JobError

if TYPE_CHECKING:
    from tilemapper.archive.mosaic import Mosaic, Part

LIST_SUFFIXES = (".txt", ".lst")
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Scene:
    """One raster of an archive, as it was listed.

    path: as it is opened; may hold a signature, so it is neither stored nor shown: `name` is.
    relpath: below the folder or prefix it was found in, without suffix. version: what is known of
    its content without opening it: size, mtime and ctime in ns, or ETag. date: ISO, from the
    catalog or the name. bbox: west, south, east, north, from the catalog. fault: why it cannot be
    rendered, whatever the options. name: what is shown, the path without secrets if nothing else.
    id: the key in the ledger. fields: more fields for the template; output: the output, whatever
    the template. mosaic: what a whole mosaic is made of. part: what is cut out of one; group: its
    mosaic's id.
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
    shown: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    group: str | None = None
    mosaic: Mosaic | None = None
    part: Part | None = None
    name: str = field(init=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.shown or public(self.path))
        object.__setattr__(self, "id", scene_id(self.path))

    @property
    def stem(self) -> str:
        """File name without folder and suffix."""
        return self.relpath.rpartition("/")[2]


def discover(source: Source, *, stdin: Iterable[str] | None = None) -> list[Scene]:
    """All scenes that a job names and its filters by name let through, each once, by path.

    Raises:
        JobError: something named in ``scenes`` is not there, or cannot be listed.
    """
    found: dict[str, Scene] = {}
    for named in source.scenes:
        for scene in _named(named, source, stdin):
            if _passes(scene, source):
                found.setdefault(scene.id, scene)
    return sorted(found.values(), key=lambda scene: scene.name)


def _named(named: str, source: Source, stdin: Iterable[str] | None) -> Iterator[Scene]:
    """The scenes that one entry of ``scenes``, or one line of a list, stands for."""
    if named == "-":
        yield from _lines(sys.stdin if stdin is None else stdin, "-", source)
    elif remote.is_remote(named):
        yield from _remote(named, source)
    elif glob.has_magic(named) and not os.path.lexists(named):
        yield from _globbed(named)
    elif Path(named).is_dir():
        yield from _folder(named)
    elif named.lower().endswith(LIST_SUFFIXES):
        lines = _read_text(named).splitlines()
        yield from _lines(lines, named, source)
    elif named.lower().endswith((".json", ".geojson")):
        yield from _catalog(named, source)
    else:
        if not os.path.lexists(named):
            raise JobError(f"{named}: no such file or folder; correct source.scenes")
        yield local_scene(named, Path(named).stem)


def local_scene(path: str, relpath: str) -> Scene:
    """A scene on a disk; what is wrong with it already is told by its ``fault``."""
    if _CONTROL.search(path):
        shown = path.encode("unicode_escape", "surrogatepass").decode()
        # Such a name would break every list, log and report that it enters.
        safe = _CONTROL.sub("?", path)
        fault = f"{shown}: the name has control characters or bytes that are no text; rename it"
        return Scene(safe, _CONTROL.sub("?", relpath), fault=fault)
    dated = _date_of(path.rpartition("/")[2])
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


def _bare(path: str) -> str:
    """A path without its suffix."""
    return os.path.splitext(path)[0]  # noqa: PTH122  100,000 of them, URLs among them


def _date_of(name: str) -> str | None:
    found = _DATE.search(name)
    return "-".join(found.groups()) if found else None


def _folder(root: str) -> Iterator[Scene]:
    """Rasters below a folder by their suffix; hidden files and folders are left out."""
    waiting = [root.rstrip("/") or "/"]
    base = len(waiting[0]) + (waiting[0] != "/")
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                listed = list(entries)
        except OSError as error:
            raise JobError(f"{error.filename}: cannot be listed ({error.strerror})") from error
        for entry in listed:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(RASTER_SUFFIXES):
                yield local_scene(entry.path, _bare(entry.path[base:]))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def _globbed(pattern: str) -> Iterator[Scene]:
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    for path in glob.iglob(pattern, recursive=True):  # noqa: PTH207  takes absolute patterns
        if Path(path).is_dir() and not path.lower().endswith(RASTER_SUFFIXES):
            continue
        yield local_scene(path, _bare(path[len(fixed) :].lstrip("/")))


def _lines(lines: Iterable[str], where: str, source: Source) -> Iterator[Scene]:
    """One scene a line; paths count from the list's folder. Empty lines and # are left out."""
    folder = Path.cwd() if where == "-" else Path(where).parent
    for number, line in enumerate(lines, 1):
        text = line.strip("\r\n").strip()
        if not text or text.startswith("#"):
            continue
        if remote.is_remote(where) and not remote.is_remote(text):
            raise JobError(f"{public(where)}: line {number} names a local path; lists may not")
        if remote.is_remote(text):
            yield _remote_scene(text)
        elif text.lower().endswith(LIST_SUFFIXES):
            raise JobError(f"{where}: line {number} names another list; name it in source.scenes")
        else:
            path = str(folder / text)
            yield local_scene(path, Path(path).stem)


def _remote(url: str, source: Source) -> Iterator[Scene]:
    plain = public(url).lower()
    if plain.endswith(LIST_SUFFIXES):
        yield from _lines(remote.fetch(url).decode(errors="replace").splitlines(), url, source)
    elif plain.endswith((".json", ".geojson")):
        yield from _catalog(url, source)
    elif plain.endswith("/") or glob.has_magic(plain):
        fixed = re.split(r"[*?\[]", url, maxsplit=1)[0].rpartition("/")[0] + "/"
        for entry in remote.listed(fixed):
            matches = not glob.has_magic(plain) or fnmatch.fnmatchcase(entry.url, url)
            if matches and public(entry.url).lower().endswith(RASTER_SUFFIXES):
                yield _of_entry(entry, public(entry.url)[len(public(fixed)) :])
    else:
        yield _remote_scene(url)


def _remote_scene(url: str) -> Scene:
    """A scene on a server; one that does not answer is named, and the others go on."""
    name = public(url).rpartition("/")[2]
    try:
        return _of_entry(remote.entry(url), name)
    except JobError as error:
        return Scene(url, _bare(name), fault=redacted(str(error)))


def _of_entry(entry: remote.Entry, relpath: str) -> Scene:
    return Scene(
        entry.url, _bare(relpath), entry.size_bytes, None, None, entry.etag,
        _date_of(relpath.rpartition("/")[2]),
    )  # fmt: skip


def _catalog(where: str, source: Source) -> Iterator[Scene]:
    for asset in stac_source.assets(where, asset=source.asset):
        scene = (
            _remote_scene(asset.href)
            if remote.is_remote(asset.href)
            else local_scene(asset.href, Path(asset.href).stem)
        )
        yield replace(scene, date=asset.date or scene.date, bbox=asset.bbox, relpath=scene.stem)


def _passes(scene: Scene, source: Source) -> bool:
    """Filters that need no raster opened; those on bounds and size run with the scene."""
    name = scene.name.rpartition("/")[2]
    if source.pattern and not any(fnmatch.fnmatchcase(name, p) for p in source.pattern):
        return False
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in source.exclude):
        return False
    if source.after is not None or source.before is not None:
        if scene.date is None:
            return False
        day = date.fromisoformat(scene.date)
        if source.after is not None and day < source.after:
            return False
        if source.before is not None and day >= source.before:
            return False
    return scene.bbox is None or source.bounds is None or touches(scene.bbox, source.bounds)


def touches(box: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes (left, bottom, right, top) share ground."""
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason: Any = getattr(error, "strerror", None) or error
        raise JobError(f"{path}: cannot be read ({reason}); correct source.scenes") from error
