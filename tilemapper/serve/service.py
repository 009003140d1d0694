"""All that a server holds, put together and taken apart again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tilemapper.errors import ModelError, OptionError, TilemapperError, shortage
from tilemapper.networks.model import Model, list_models, open_model
from tilemapper.paths import real_path, typed_path
from tilemapper.raster.drivers import check_drivers
from tilemapper.raster.lattice import Lattice, overlap_for
from tilemapper.raster.source import SourceOptions, SourceSpec, inspect_source
from tilemapper.render.devices import choose_device
from tilemapper.serve.bounded import BoundedCache
from tilemapper.serve.exporting import write_png
from tilemapper.serve.folders import Folders
from tilemapper.serve.generator import Generator
from tilemapper.serve.jobs import Job, Jobs
from tilemapper.serve.limits import GoneError, Limits
from tilemapper.serve.livemap import Cell, LiveMap
from tilemapper.serve.picture import Picture
from tilemapper.serve.previews import Previews
from tilemapper.serve.scenes import Scene, Scenes
from tilemapper.serve.scratch import Scratch
from tilemapper.serve.tiles import Tiles

_REMOTE = ("http:/", "https:/", "s3:/")  # as a path has them


@dataclass(frozen=True)
class Setting:
    """What a server is started with; the names are those of the command's options."""

    rasters: tuple[Path, ...] = ()
    allow: tuple[Path, ...] = ()
    models: tuple[str, ...] = ()
    overlap: int | None = None
    device: str = "auto"
    precision: str = "auto"
    allow_drivers: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


class Service:
    """Rasters, models, the generator's thread, caches and jobs of one server. Close it.

    Raises:
        ModelError: a model is missing, damaged, or does not take three bands.
        RasterError, OptionError: a raster, folder or option that was given cannot be used.
        DeviceError: there is no such device.
    """

    def __init__(self, setting: Setting) -> None:
        self.limits = limits = setting.limits
        self.folders = Folders.of(setting.allow)
        self.models = {model.card.name: model for model in _models(setting.models)}
        # Said now, not by every tile.
        tile = next(iter(self.models.values())).card.tile
        Lattice(1, 1, overlap_for(tile, setting.overlap), tile)
        choose_device(setting.device)
        check_drivers(setting.allow_drivers)
        self._scratch = Scratch()
        self.folder = self._scratch.path
        options: dict[str, Any] = {"device": setting.device, "precision": setting.precision}
        # A quarter each for predictions, cells, previews, and pictures that are ready to send.
        share = max(1, limits.cache_bytes // 4)
        self.previews = Previews(share)
        self.cells: BoundedCache[Cell] = BoundedCache(share, lambda cell: cell.nbytes)
        self.generator = Generator(cache_bytes=share, **options)
        self.jobs = Jobs(
            self.folder,
            self.generator,
            waiting=limits.jobs_waiting,
            kept=limits.jobs_kept,
            overlap=setting.overlap,
            **options,
        )
        self.scenes = Scenes(
            most=limits.scenes,
            uploads=limits.uploads_kept,
            previews=self.previews,
            make_map=lambda scene, spec, model: LiveMap(
                scene.id,
                spec,
                model,
                self.generator,
                self.cells,
                overlap=setting.overlap,
                wait_s=limits.wait_s,
            ),
            allow_drivers=setting.allow_drivers,
            on_close=self._forget,
        )
        self.tiles = Tiles(
            self.scenes,
            self.models,
            self._rendered,
            live_tiles=limits.live_tiles,
            cache_bytes=share,
        )
        self._maps: dict[int, Picture] = {}  # of finished jobs, by the job's number
        self._lock = threading.Lock()
        self._closed = False
        try:
            for raster in setting.rasters:
                if str(raster).startswith(_REMOTE):
                    raise OptionError(
                        f"{raster}: serve shows rasters on this machine; copy it here"
                    )
                self.scenes.open(real_path(typed_path(raster)), name=raster.name, kept=True)
        except BaseException:
            self.close()
            raise

    def warm_up(self) -> None:
        """Begins to load the model that is offered first; call it when nothing else can fail."""
        self.generator.warm_up(next(iter(self.models.values())))

    def map_json(self, scene: Scene, name: str) -> dict[str, Any]:
        """What the page needs to know of a scene's map by a model."""
        model = self.tiles.model(name)
        live = self.scenes.map(scene, model)
        job = self.jobs.done(scene, model)
        return {
            "model": name,
            "height": live.spec.height,
            "width": live.spec.width,
            "gsd_m": live.spec.gsd_m,
            "tiles": live.lattice.tile_count,
            "native_zoom": scene.frame.native_zoom(live.spec),
            "live_zoom": 0 if job else self.tiles.live_zoom(scene, live),
            "job": job.id if job else None,
            "notices": [scene.plain(notice) for notice in live.spec.notices],
        }

    def download(self, job_id: int, kind: str) -> tuple[BinaryIO, Job]:
        """The file of a finished map, opened: ``tif`` or ``png``.

        Raises:
            GoneError: there is no such job, or its map is not finished, or was removed just now.
            TooLargeError: it is too large for a PNG.
            DiskFullError, TargetError: a PNG cannot be written.
            ShortageError: too many files are open.
        """
        job = self.jobs.get(job_id)
        if job.state != "done" or kind not in ("tif", "png"):
            raise GoneError(f"job {job_id}: there is no such map; it is {job.state}")
        path = job.target.with_suffix(f".{kind}")
        try:
            if kind == "png":
                with job.png_lock:
                    if not path.exists():
                        write_png(job.target, path, most_pixels=self.limits.png_pixels)
            return path.open("rb"), job
        except (TilemapperError, OSError) as error:
            self.jobs.get(job_id)  # raises if it is the removal that was in the way
            if lack := shortage(error):
                raise lack from error
            raise

    def status(self) -> dict[str, Any]:
        """Figures for those who look after a server."""
        return {
            "scenes": len(self.scenes.all()),
            "jobs": len(self.jobs.all()),
            "lattice_tiles_run": self.generator.tiles_run,
            "lattice_tiles_waiting": self.generator.waiting,
            "prediction_bytes": self.generator.held_bytes,
            "cell_bytes": self.cells.held_bytes,
            "preview_bytes": self.previews.held_bytes,
            "png_bytes": self.tiles.held_bytes,
        }

    def close(self) -> None:
        """Ends threads, closes files, removes what was uploaded and rendered; once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # First what the jobs wait for: all of it must be over in the 10 s that a signal may take.
        self.generator.close()
        self.jobs.close()
        self.scenes.close()
        with self._lock:
            for picture in self._maps.values():
                picture.close()
        self._scratch.close()

    def _rendered(self, scene: Scene, live: LiveMap) -> Picture | None:
        job = self.jobs.done(scene, live.model)
        if job is None:
            return None
        with self._lock:
            for gone in set(self._maps) - {job.id for job in self.jobs.all()}:
                self._maps.pop(gone).close()
            if job.id not in self._maps:
                spec = _spec_of(job)
                smooth = live.model.card.head != "palette"
                self._maps[job.id] = Picture(spec, self.previews, placed=live.spec, smooth=smooth)
            return self._maps[job.id]

    def _forget(self, scene: Scene) -> None:
        self.jobs.forget(scene)
        self.tiles.forget(scene.id)
        self.cells.drop(lambda key: isinstance(key, tuple) and key[0] == scene.id)


def _models(names: Sequence[str]) -> list[Model]:
    """The models named first, then all others that are found by name."""
    models = [open_model(name) for name in names]
    for model in models:
        if model.card.bands != 3:
            raise ModelError(f"{model.card.name}: takes {model.card.bands} bands, 3 are served")
    models += [model for model in list_models() if model.card.bands == 3]
    if not models:
        raise ModelError("serve: no model found; give one with --model FOLDER")
    unique: dict[str, Model] = {}
    for model in models:
        unique.setdefault(model.card.name, model)
    return list(unique.values())


def _spec_of(job: Job) -> SourceSpec:
    return inspect_source(str(job.target), SourceOptions(), None)
