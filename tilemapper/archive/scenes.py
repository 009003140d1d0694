"""Scene discovery: from what a job names to a list of scenes, without opening one of them."""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilemapper.archive import index_pages, remote, stac_source
from tilemapper.archive.globbing import globbed, is_glob, literal
from tilemapper.archive.job import RASTER_SUFFIXES, Source
from tilemapper.archive.relpaths import below_shared, of_item
from tilemapper.archive.scene import Scene, bare, date_of, day_of, local_scene, misnamed, printable
from tilemapper.errors import JobError, TryAgainError
from tilemapper.raster.dateline import touches
from tilemapper.raster.secrets import public, redacted

LIST_SUFFIXES = (".txt", ".lst")


def discover(source: Source, *, stdin: Iterable[str] | None = None) -> list[Scene]:
    """All scenes that a job names and its filters by name let through, each once, by path.

    Raises:
        JobError: something named in ``scenes`` is not there, or cannot be listed; or there are
            catalogs' items only, and none has a raster.
    """
    found: dict[str, Scene] = {}
    rasters = False
    for named in source.scenes:
        for scene in _named(named, source, stdin):
            rasters = rasters or not scene.absent
            if _passes(scene, source):
                found.setdefault(scene.id, scene)
    if found and not rasters:
        raise JobError(str(next(iter(found.values())).fault))  # the job asks for what no item has
    return sorted(found.values(), key=lambda scene: scene.name)


def _named(named: str, source: Source, stdin: Iterable[str] | None) -> Iterator[Scene]:
    """The scenes that one entry of ``scenes``, or one line of a list, stands for."""
    if named == "-":
        yield from _lines(sys.stdin if stdin is None else stdin, "-", source)
    elif remote.is_remote(named):
        yield from _remote(named, source)
    elif is_glob(named):
        yield from globbed(named)
    else:
        yield from _on_disk(literal(named), source)


def _on_disk(named: str, source: Source) -> Iterator[Scene]:
    if Path(named).is_dir():
        yield from _folder(named)
    elif named.lower().endswith(LIST_SUFFIXES):
        yield from _lines(_split(_read_text(named)), named, source)
    elif named.lower().endswith((".json", ".geojson")):
        yield from _catalog(named, source)
    else:
        if not os.path.lexists(named):
            raise JobError(f"{named}: no such file or folder; correct source.scenes")
        yield local_scene(named, Path(named).stem)


def _folder(root: str) -> Iterator[Scene]:
    """Rasters below a folder by their suffix; hidden files and folders are left out."""
    top = root.rstrip("/") or "/"
    waiting, base = [top], len(top) + (top != "/")
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            shown = printable(folder)
            line = f"{shown}: cannot be listed ({error.strerror}); check its rights, or exclude it"
            if folder == top:
                raise JobError(line) from error
            # One closed folder, such as lost+found, stops no other; it is named as scenes are.
            yield Scene(folder, printable(folder[base:]), fault=line, closed=True)
            continue
        for entry in listed:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(RASTER_SUFFIXES):
                yield local_scene(entry.path, bare(entry.path[base:]))
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def _lines(lines: Iterable[str], where: str, source: Source) -> Iterator[Scene]:
    """One scene a line; paths count from the list's folder. Empty lines and # are left out."""
    folder = Path.cwd() if where == "-" else Path(where).parent
    paths: list[str] = []
    addresses: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.strip(" \t\r\n")
        if not text or text.startswith("#"):
            continue
        if remote.is_remote(where) and not remote.is_remote(text):
            raise JobError(f"{public(where)}: line {number} names a local path; lists may not")
        if remote.is_remote(text):
            addresses.append(text)
        elif text.lower().endswith(LIST_SUFFIXES):
            raise JobError(f"{where}: line {number} names another list; name it in source.scenes")
        else:
            paths.append(str(folder / text))
    yield from map(local_scene, paths, map(bare, below_shared(paths)))
    yield from _remote_scenes(addresses, below_shared(addresses))


def _remote(url: str, source: Source) -> Iterator[Scene]:
    plain = public(url).lower()
    if plain.endswith(LIST_SUFFIXES):
        text = remote.fetch(url).decode("utf-8-sig", "replace")
        yield from _lines(_split(text), url, source)
    elif plain.endswith((".json", ".geojson")):
        yield from _catalog(url, source)
    elif plain.endswith("/") or glob.has_magic(plain):
        yield from _below(url)
    else:
        yield _remote_scene(url)


def _below(url: str) -> Iterator[Scene]:
    """Rasters under a prefix of a store, or linked below an index page; ``url`` may be a glob."""
    fixed = re.split(r"[*?\[]", url, maxsplit=1)[0].rpartition("/")[0] + "/"
    pattern = url if glob.has_magic(public(url)) else f"{glob.escape(url)}*"

    def wanted(address: str) -> bool:
        name = public(address).lower()
        return name.endswith(RASTER_SUFFIXES) and fnmatch.fnmatchcase(address, pattern)

    def below(address: str) -> str:
        return public(address)[len(public(fixed)) :]

    if url.startswith("s3://"):
        found = remote.listed(fixed)
        yield from (_of_entry(entry, below(entry.url)) for entry in found if wanted(entry.url))
    else:
        addresses = [address for address in index_pages.linked(fixed) if wanted(address)]
        yield from _remote_scenes(addresses, list(map(below, addresses)))


def _remote_scenes(addresses: list[str], relpaths: list[str] | None = None) -> Iterator[Scene]:
    """Scenes on servers, many of them asked for at once."""
    asked = functools.partial(_remote_scene, silent=Counter())
    with ThreadPoolExecutor(remote.ASKED_AT_ONCE) as pool:
        yield from pool.map(asked, addresses, relpaths or [None] * len(addresses))


def _remote_scene(
    url: str, relpath: str | None = None, silent: Counter[str] | None = None
) -> Scene:
    """A scene on a server; one that does not answer is named, and the others go on.

    silent: how often in a row each server gave no answer; one that lets thousands of scenes wait
    for nothing is not asked for the rest.
    """
    silent, server = Counter[str]() if silent is None else silent, str(remote.server_of(url))
    name = relpath or public(url).rpartition("/")[2]
    if (wrong_name := misnamed(url, bare(name))) is not None:
        return wrong_name
    url = remote.quoted(url)
    try:
        if silent[server] >= remote.ASKED_AT_ONCE:
            raise TryAgainError(f"{public(url)}: its server is silent; try again later")
        entry = remote.entry(url)
        silent[server] = 0
        return _of_entry(entry, name)
    except (JobError, TryAgainError) as error:
        passes = isinstance(error, TryAgainError)
        silent[server] = silent[server] + 1 if passes else 0
        return Scene(url, bare(name), fault=redacted(str(error)), passes=passes)


def _of_entry(entry: remote.Entry, relpath: str) -> Scene:
    return misnamed(entry.url, bare(relpath)) or Scene(
        entry.url, bare(relpath), entry.size_bytes, None, None, entry.etag,
        date_of(relpath.rpartition("/")[2]),
    )  # fmt: skip


def _catalog(where: str, source: Source) -> Iterator[Scene]:
    listed = list(stac_source.assets(where, asset=source.asset))
    assets = [asset for asset in listed if asset.fault is None]
    yield from (_without_raster(asset) for asset in listed if asset.fault is not None)
    addresses = [asset.href for asset in assets if remote.is_remote(asset.href)]
    answered = dict(zip(addresses, _remote_scenes(addresses), strict=True))
    for asset in assets:
        scene = answered.get(asset.href) or local_scene(asset.href, Path(asset.href).stem)
        relpath = of_item(asset.item, scene.stem)
        yield replace(scene, date=asset.date or scene.date, bbox=asset.bbox, relpath=relpath)


def _without_raster(asset: stac_source.Asset) -> Scene:
    """The scene of an item that has no raster: it fails and is named, and the others go on."""
    name = of_item(asset.item, "item")
    path, fault = f"{asset.href}/{name}", printable(str(asset.fault))
    return Scene(
        path, name, date=asset.date, bbox=asset.bbox, fault=fault, passes=asset.passes,
        closed=True, absent=not asset.passes,
    )  # fmt: skip


def _passes(scene: Scene, source: Source) -> bool:
    """Filters that need no raster opened; those on bounds and size run with the scene."""
    name = scene.name.rpartition("/")[2]
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in source.exclude):
        return False
    if scene.fault is not None and not name.lower().endswith(RASTER_SUFFIXES):
        # A folder that could not be listed, or an item without a raster: it may be what is wanted.
        return (scene.date is None or _in_time(scene, source)) and _in_bounds(scene, source)
    if source.pattern and not any(fnmatch.fnmatchcase(name, p) for p in source.pattern):
        return False
    return _in_time(scene, source) and _in_bounds(scene, source)


def _in_time(scene: Scene, source: Source) -> bool:
    if source.after is None and source.before is None:
        return True
    day = day_of(scene.date)
    return (
        day is not None
        and (source.after is None or day >= source.after)
        and (source.before is None or day < source.before)
    )


def _in_bounds(scene: Scene, source: Source) -> bool:
    return scene.bbox is None or source.bounds is None or touches(scene.bbox, source.bounds)


def _split(text: str) -> list[str]:
    """Lines of a list. ``str.splitlines`` would cut at characters that stand in names, too."""
    return re.split(r"\r\n|\r|\n", text)


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # a mark may stand before the text
    except (OSError, UnicodeDecodeError) as error:
        reason: Any = getattr(error, "strerror", None) or error
        raise JobError(f"{path}: cannot be read ({reason}); correct source.scenes") from error
