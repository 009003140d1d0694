"""Joins the staged blocks into the final raster, reads it back, and puts it in place at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from rasterio.errors import RasterioError

from tilemapper.errors import StagingError, TargetError, too_many_files
from tilemapper.raster.atomic import atomic_write, fsync_file, writing_failed
from tilemapper.raster.encode import is_lossless
from tilemapper.render.joining import join
from tilemapper.render.places import Joined
from tilemapper.render.plan import Layer
from tilemapper.render.readback import check_georeferencing, check_joined, check_pixels
from tilemapper.render.staging import Staging
from tilemapper.render.targets import remove_stale_sidecars
from tilemapper.render.translating import translate


def finish(staging: Staging, tags: Mapping[str, str]) -> None:
    """Builds every layer's raster from the finished blocks and renames it to its final name.

    Raises:
        StagingError: a block is missing or damaged, or the joined raster reads back otherwise.
        DiskFullError, TargetError: the target cannot be written.
    """
    for layer in staging.plan.layers:
        finish_layer(staging, layer, tags)


def finish_layer(staging: Staging, layer: Layer, tags: Mapping[str, str]) -> None:
    """One layer of `finish`."""
    plan, target = staging.plan, Path(layer.target)
    try:
        # Where a kill leaves it, the next run clears it away. But no file moves to another disk,
        # and the folder may be a link to one.
        beside = target.parent.resolve() == staging.folder.parent.resolve()
        same_disk = target.parent.stat().st_dev == staging.folder.stat().st_dev
        with (
            atomic_write(target, staging.folder if beside and same_disk else None) as part,
            _nameless(staging.folder) as made,
        ):
            joined = join(staging, layer, tags, part, made)
            with ThreadPoolExecutor(1, "sync") as pool:
                # The disk writes while the bytes are compared; a failure of either is raised here,
                # the disk's own first: what it could not take may be read back as something else.
                synced = pool.submit(fsync_file, part)
                try:
                    _check(staging, layer, joined, part)
                except (StagingError, RasterioError):
                    synced.result()
                    raise
                synced.result()
            if plan.needs_gdal(layer):
                translate(part, plan, target)
                _check(staging, layer, None, part)
        remove_stale_sidecars(target)
    except RasterioError as error:
        short = too_many_files(target, str(error))
        raise short or TargetError(
            f"{target}: GDAL cannot write it ({error}); check --co"
        ) from error
    except OSError as error:
        if isinstance(error, TargetError) or error.errno is None:
            raise
        raise writing_failed(target, error) from error


@contextlib.contextmanager
def _nameless(folder: Path) -> Iterator[BinaryIO]:
    """A new file whose name is gone at once, so that no kill leaves it behind.

    Not one of `tempfile`: where making it fails it tries another way, and a full disk is not told.
    """
    path = folder / ".made.tmp"
    with path.open("w+b") as file:
        with contextlib.suppress(OSError):  # then it goes with the folder
            path.unlink()
        yield file


def _check(staging: Staging, layer: Layer, joined: Joined | None, path: Path) -> None:
    """Reads back what was joined, or what GDAL has made of it, before it gets its name."""
    if joined is not None:
        check_joined(staging, layer, joined, path)
        return
    check_georeferencing(staging.plan, layer, path)
    if is_lossless(staging.plan.creation_options):
        check_pixels(staging.plan, layer, staging.done, path)
