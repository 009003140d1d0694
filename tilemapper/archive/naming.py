"""Which files a scene becomes: templates filled in, no two scenes on one file."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.scene import Scene, bare
from tilemapper.errors import JobError


def name_outputs(
    job: ArchiveJob, scenes: list[Scene], made: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """The files of each scene by its id; scenes that are outputs themselves are left out.

    The map comes first, then what `rendering.Render.layers` names, in its order.

    Args:
        job: whose templates name them.
        scenes: all that are listed.
        made: files that runs of the job made, with the scene of each: outputs of earlier
            templates, or of scenes that are gone, which lie among the sources.

    Raises:
        JobError: two scenes would be written to one file, or one over its own raster.
    """
    real = _Folders()
    scenes = without_made(scenes, made or {})
    outputs: dict[str, tuple[str, ...]] = {}
    first: dict[str, Scene] = {}
    for scene in scenes:
        outputs[scene.id] = outputs_of(job, scene)
        if scene.closed:
            continue  # it may be called as another one is, or as a raster is: none is written
        for output in outputs[scene.id]:
            if real.path(output) == real.path(scene.name):
                raise JobError(
                    f"{scene.name}: its map would be written over it; let output.template name "
                    "another folder or another ending"
                )
            other = first.setdefault(real.path(output), scene)
            if other is not scene:
                raise JobError(
                    f"{scene.name} and {other.name}: both would be written to {output}; tell them "
                    "apart in output.template, by {relpath} for instance"
                )
    # Outputs that lie among the sources are listed with them at the next run.
    return {s.id: outputs[s.id] for s in scenes if first.get(real.path(s.name)) in (None, s)}


def without_made(scenes: list[Scene], made: Mapping[str, str]) -> list[Scene]:
    """Scenes without those that are files that runs ``made`` of other ones."""
    real = _Folders()
    own = {real.path(path): scene for path, scene in made.items()}
    return [s for s in scenes if own.get(real.path(s.name)) in (None, s.id)]


class _Folders:
    """Paths by the folders that they lie in, whatever link or ``..`` they are named by."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def path(self, path: str) -> str:
        folder, slash, name = path.rpartition("/")
        if "://" in path or not slash:
            return path
        if folder not in self._real:  # one look at a folder, not at each of 100,000 files
            self._real[folder] = os.path.realpath(folder or "/")
        return f"{self._real[folder]}/{name}"


def outputs_of(job: ArchiveJob, scene: Scene) -> tuple[str, ...]:
    """The templates filled in for a scene.

    Raises:
        JobError: a path would lead out of the output folder.
    """
    if scene.output is not None:
        return scene.output, *(layer_beside(scene.output, name) for name in job.render.layers())
    model = job.render.model.rstrip("/").rpartition("/")[2]
    values = {
        "stem": scene.stem, "name": job.name, "relpath": scene.relpath, "model": model,
        "date": scene.date or "undated",
    } | dict(scene.fields)  # fmt: skip
    paths = tuple(template.format(**values) for template in job.templates)
    for path in paths:
        if "/../" in path or path.endswith("/.."):
            raise JobError(
                f"{scene.name}: its output {path} would leave the output folder; rename it"
            )
    return paths


def layer_beside(path: str, layer: str) -> str:
    """The path of a layer of a map that is only an intermediate: beside it, by the layer's name."""
    return f"{bare(path)}.{layer}.tif"
