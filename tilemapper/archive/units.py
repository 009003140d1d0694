"""From listed scenes to units of work: a scene, a whole mosaic, or a part cut out of one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace

from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.mosaic import Member, Mosaic, mosaics_of
from tilemapper.archive.naming import without_made
from tilemapper.archive.part import Part
from tilemapper.archive.scene import Scene
from tilemapper.archive.scenes import discover
from tilemapper.errors import TryAgainError
from tilemapper.raster.gsd import output_size, pixel_size_m, wanted_steps
from tilemapper.raster.secrets import scene_id


def listed(job: ArchiveJob, model_gsd_m: float | None = None) -> list[Scene]:
    """All units of a job; those of a mosaic need the headers of its scenes.

    model_gsd_m: metres a pixel of the model's imagery, which decides how many cells there are.

    Raises:
        JobError: the archive cannot be listed.
        TargetError, LockedError: its ledger cannot be read.
        TryAgainError: a server does not answer.
    """
    scenes = discover(job.source)
    if job.mosaic is None:
        return scenes
    for scene in scenes:
        if scene.passes:  # rendered without it, the mosaic would be done again tomorrow
            raise TryAgainError(str(scene.fault))
    # After the listing: what another run has put there meanwhile is known by now.
    ledger = Ledger.existing(job.work / "ledger.sqlite")
    if ledger is not None:
        with ledger:  # maps that lie among their scenes touch them, and are no part of a mosaic
            scenes = without_made(scenes, ledger.all_made())
    mosaics, alone = mosaics_of(job, scenes)
    units = [unit for mosaic in mosaics for unit in _units(job, mosaic, model_gsd_m)]
    return units + [_plain(job, scene) for scene in alone]


def _plain(job: ArchiveJob, scene: Scene) -> Scene:
    """A scene that is a mosaic by itself."""
    assert job.mosaic is not None
    cell = {"row": "0", "col": "0"} if job.mosaic.output == "cell" else {}
    return replace(scene, fields=(("mosaic", scene.stem), *cell.items()))


def _units(job: ArchiveJob, mosaic: Mosaic, model_gsd_m: float | None) -> Iterator[Scene]:
    assert job.mosaic is not None
    kind = job.mosaic.output
    if len(mosaic.members) == 1 and kind != "cell":
        yield _plain(job, mosaic.members[0].scene)
        return
    first = mosaic.members[0].scene
    name = scene_id(f"mosaic {first.path}")
    folder = job.work / "mosaics"
    whole = Scene(
        path=str(folder / f"{name}.vrt"),
        relpath=first.relpath,
        etag=mosaic.version,
        date=first.date,
        shown=f"mosaic of {len(mosaic.members)} scenes from {first.name}",
        fields=(("mosaic", mosaic.name),),
        mosaic=mosaic,
        output=None if kind == "one" else str(folder / f"{name}.tif"),
    )
    yield whole
    if kind == "scene":
        for member in mosaic.members:
            part = Part(str(whole.output), box=member.box)
            yield _part(whole, member.scene, part)
    elif kind == "cell":
        yield from _cells(job, whole, mosaic, model_gsd_m)


def _part(whole: Scene, scene: Scene, part: Part, **fields: str) -> Scene:
    version = hashlib.sha256(f"{whole.etag} {part}".encode()).hexdigest()
    return replace(
        scene, size_bytes=None, mtime_ns=None, ctime_ns=None, etag=version, part=part,
        group=whole.id, fields=(*whole.fields, *fields.items()),
    )  # fmt: skip


def _cells(
    job: ArchiveJob, whole: Scene, mosaic: Mosaic, model_gsd_m: float | None
) -> Iterator[Scene]:
    assert job.mosaic is not None
    side = job.mosaic.cell_px
    height, width = size_of(job, mosaic, model_gsd_m)
    for row in range(math.ceil(height / side)):
        for col in range(math.ceil(width / side)):
            part = Part(str(whole.output), cell=(row, col), cell_px=side)
            cell = Scene(
                path=f"{whole.output}#r{row}c{col}",
                relpath=whole.relpath,
                date=whole.date,
                shown=f"{whole.name}, row {row}, col {col}",
            )
            yield _part(whole, cell, part, row=str(row), col=str(col))


def size_of(job: ArchiveJob, mosaic: Mosaic, model_gsd_m: float | None) -> tuple[int, int]:
    """Height and width of a mosaic's map, ``render.bounds`` left out."""
    first: Member = mosaic.members[0]
    height, width = mosaic.size
    size_m = pixel_size_m(mosaic.transform, first.crs, height, width)
    steps = wanted_steps(first.scene.name, size_m, job.render.gsd, model_gsd_m)
    return (height, width) if steps is None else output_size(first.scene.name, height, width, steps)
