"""The folders that a server may show, and the only way from a name in them to a path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilemapper.errors import OptionError
from tilemapper.paths import real_path, typed_path
from tilemapper.serve.limits import GoneError

# By their endings only: a list must not open hundreds of files. Opening looks at the bytes.
_ENDINGS = (".tif", ".tiff", ".jp2", ".j2k", ".jpg", ".jpeg", ".png", ".vrt")
_SIDECARS = (".msk", ".MSK", ".ovr", ".OVR", ".msk.ovr", ".aux.xml")


@dataclass(frozen=True)
class Folders:
    """Folders that were allowed, resolved; nothing outside them is named, listed or opened."""

    roots: tuple[Path, ...]

    @classmethod
    def of(cls, folders: Sequence[str | Path]) -> Folders:
        """Folders as they were typed. Raises OptionError for one that is none."""
        roots = []
        for folder in folders:
            path = typed_path(folder)
            if not path.is_dir():
                raise OptionError(f"--allow {folder}: no such folder; name one that is there")
            roots.append(real_path(path))
        return cls(tuple(dict.fromkeys(roots)))

    def path(self, folder: int, name: str) -> Path:
        """What ``name`` is in a folder, links followed.

        Raises:
            GoneError: it is not there, or lies outside the folder; the two look alike.
        """
        missing = GoneError(f"{name or '.'}: nothing of this name is in the folder")
        if not 0 <= folder < len(self.roots) or "\0" in name:
            raise missing
        root = self.roots[folder]
        try:
            path = (root / name).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:  # ValueError: no text that a name has
            raise missing from error
        # GDAL opens what lies beside a raster too, and that may be a link out of the folder.
        endings = _SIDECARS if path.is_file() else ()
        beside = [real_path(f"{path}{ending}") for ending in endings]
        for found in (path, *beside):
            if found != root and root not in found.parents:
                raise missing
        return path

    def listed(self, folder: int, name: str, most: int) -> dict[str, Any]:
        """Folders and rasters in a folder, by name, at most so many of each.

        Raises:
            GoneError: see `path`.
        """
        here = self.path(folder, name)
        if not here.is_dir():
            raise GoneError(f"{name}: is no folder")
        try:
            with os.scandir(here) as entries:
                folders, rasters, more = _sorted_out(entries, most)
        except OSError as error:
            reason = error.strerror or error
            raise GoneError(f"{name or '.'}: cannot be listed ({reason}); check rights") from error
        return {
            "folder": folder,
            "path": name,
            "folders": sorted(folders),
            "rasters": sorted(rasters),
            "more": more,
        }


def _sorted_out(
    entries: Iterator[os.DirEntry[str]], most: int
) -> tuple[list[str], list[str], bool]:
    """Folders, rasters, and whether there are more."""
    folders: list[str] = []
    rasters: list[str] = []
    for entry in entries:
        if len(folders) >= most or len(rasters) >= most:
            return folders, rasters, True
        if entry.name.startswith(".") or not _is_text(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        elif entry.name.lower().endswith(_ENDINGS):
            rasters.append(entry.name)
    return folders, rasters, False


def _is_text(name: str) -> bool:
    """Whether a name can be sent, and asked for: on a disk it may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
