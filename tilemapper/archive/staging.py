"""Where a run stages: names that tell what a file was made from, and what may be swept away."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Collection
from pathlib import Path

from tilemapper.archive.naming import layer_beside
from tilemapper.archive.scene import Scene
from tilemapper.raster.atomic import make_folder


class Staging:
    """The staging folder of a job; runs of one job share it, and never a scene in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        """Makes the folder.

        Raises:
            TargetError, DiskFullError: it cannot be made.
        """
        make_folder(self.folder)

    def path(self, scene: Scene, recipe: str) -> Path:
        """Where a scene's map is staged: another place once its source or the options change."""
        version = [recipe, scene.size_bytes, scene.mtime_ns, scene.etag]
        key = hashlib.sha256(json.dumps(version).encode()).hexdigest()[:12]
        return self.folder / f"{scene.id}-{key}.tif"

    def layers(self, staged: Path, names: Collection[str]) -> dict[str, str]:
        """Where the layers beside a staged map are staged, by their names."""
        return {name: layer_beside(str(staged), name) for name in names}

    def drop_others(self, scene: Scene, staged: Path) -> None:
        """Removes what was staged of a scene as it was, or with other options."""
        for path in self.folder.glob(f"{scene.id}-*"):
            if not path.name.startswith(staged.stem):
                _remove(path)

    def sweep(self, wanted: Collection[str], listed: Collection[Path]) -> None:
        """Removes those of the ``listed`` paths that belong to no scene with a ``wanted`` id."""
        for path in listed:
            # A file that is being written begins with a dot, and is some run's own.
            if path.name.lstrip(".").partition("-")[0] not in wanted:
                _remove(path)

    def free_gb(self) -> float:
        """Free disk, in GB."""
        return free_gb_at(self.folder)


def free_gb_at(folder: Path) -> float:
    """Free disk, in GB, where a folder is or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9


def _remove(path: Path) -> None:
    """Removes what nobody wants; what cannot be removed now is met again by the next run."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
