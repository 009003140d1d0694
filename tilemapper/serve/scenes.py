"""The rasters that are open, by the names that requests use."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasterio.crs import CRS

from tilemapper.errors import RasterError, ShortageError
from tilemapper.networks.model import Model
from tilemapper.raster.identity import TIMES
from tilemapper.raster.source import SourceOptions, SourceSpec, inspect_source
from tilemapper.serve.frame import BEYOND_NATIVE, Frame, frame_of
from tilemapper.serve.limits import GoneError, TooLargeError
from tilemapper.serve.livemap import LiveMap
from tilemapper.serve.picture import Picture
from tilemapper.serve.previews import Previews
from tilemapper.serve.wording import AGAIN, plain


@dataclass
class Scene:
    """An open raster. ``id`` stands in URLs, ``name`` is for people, ``kept`` ones stay open.

    ``number`` counts up from the first that was opened.
    """

    id: str
    name: str
    spec: SourceSpec
    frame: Frame
    picture: Picture
    kept: bool
    uploaded: bool
    number: int = 0
    maps: dict[str, LiveMap] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        """Closes its files; an upload is removed."""
        self.picture.close()
        for live in list(self.maps.values()):  # a request may be adding one
            live.close()
        if self.uploaded:
            Path(self.spec.path).unlink(missing_ok=True)

    def to_json(self) -> dict[str, Any]:
        """What the page needs to show it."""
        native = self.frame.native_zoom(self.spec)
        crs = None if self.spec.crs_wkt is None else CRS.from_wkt(self.spec.crs_wkt)
        return {
            "id": self.id,
            "name": self.name,
            "height": self.spec.height,
            "width": self.spec.width,
            "gsd_m": self.spec.gsd_m,
            "crs": None if crs is None else (crs.to_string() if crs.to_epsg() else "custom"),
            "scheme": self.frame.scheme,
            "bounds": self.frame.bounds,
            "native_zoom": native,
            "max_zoom": native + BEYOND_NATIVE,
            "uploaded": self.uploaded,
            "notices": [self.plain(notice) for notice in self.spec.notices],
        }

    def plain(self, message: str) -> str:
        """A message about it; see `tilemapper.serve.wording.plain`."""
        return plain(message, path=self.spec.path, name=self.name)


class Scenes:
    """Open scenes, at most so many; those that were not looked at for longest are closed first.

    Args:
        most: scenes that are open; those given at the start stay.
        uploads: of them at most so many are uploads.
        previews: those of the server.
        make_map: a scene's map by a model, on the spec of that model's grid.
        allow_drivers: GDAL's names of further drivers; never used for uploads.
        on_close: called with a scene that is closed.
    """

    def __init__(
        self,
        *,
        most: int,
        uploads: int,
        previews: Previews,
        make_map: Callable[[Scene, SourceSpec, Model], LiveMap],
        allow_drivers: Sequence[str] = (),
        on_close: Callable[[Scene], None] = lambda scene: None,
    ) -> None:
        self._most, self._uploads, self._make_map = most, uploads, make_map
        self._previews = previews
        self._drivers, self._on_close = tuple(allow_drivers), on_close
        self._scenes: OrderedDict[str, Scene] = OrderedDict()
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    def open(
        self,
        path: Path,
        *,
        name: str | None = None,
        kept: bool = False,
        uploaded: bool = False,
        most_pixels: int | None = None,
    ) -> Scene:
        """Opens a raster, or finds it open.

        Raises:
            RasterError: it cannot be opened, or not be shown.
            ShortageError: too many files are open.
            TooLargeError: it has more than ``most_pixels``.
        """
        name = name or path.name
        try:
            spec = inspect_source(str(path), self._options(uploaded), None)
            if most_pixels is not None and spec.height * spec.width > most_pixels:
                raise TooLargeError(
                    f"{name}: {spec.width} x {spec.height} px, at most {most_pixels / 1e6:.0f} "
                    "million are taken; give large rasters to `tilemapper serve` by their path"
                )
            scene_id = _id_of(name, spec)
            with self._lock:
                if scene_id in self._scenes:
                    self._scenes.move_to_end(scene_id)
                    return self._scenes[scene_id]
            picture = Picture(spec, self._previews)
            scene = Scene(scene_id, name, spec, frame_of(spec), picture, kept, uploaded)
        except (RasterError, ShortageError) as error:
            raise type(error)(plain(str(error), path=str(path), name=name)) from error
        return self._add(scene)

    def get(self, scene_id: str) -> Scene:
        """An open scene. Raises GoneError if there is none of this id."""
        with self._lock:
            if scene_id not in self._scenes:
                raise GoneError(f"{scene_id}: no raster of this id is open; open it again")
            self._scenes.move_to_end(scene_id)
            return self._scenes[scene_id]

    def all(self) -> list[Scene]:
        """All open scenes as they were opened, the given ones first."""
        with self._lock:  # where they lie in the dictionary tells which was looked at last
            return sorted(self._scenes.values(), key=lambda scene: (not scene.kept, scene.number))

    def map(self, scene: Scene, model: Model) -> LiveMap:
        """A scene's map by a model.

        Raises:
            RasterError: the model cannot be used on this raster.
        """
        with scene.lock:
            if model.card.name not in scene.maps:
                try:
                    spec = inspect_source(
                        scene.spec.path, self._options(scene.uploaded), model.card.gsd_m
                    )
                    check_same(scene.spec, spec)
                except (RasterError, ShortageError) as error:
                    raise type(error)(scene.plain(str(error))) from error
                scene.maps[model.card.name] = self._make_map(scene, spec, model)
            return scene.maps[model.card.name]

    def remove(self, scene_id: str) -> None:
        """Closes a scene. Raises GoneError if there is none, or if it was given at the start."""
        with self._lock:
            if self.get(scene_id).kept:
                raise GoneError(f"{scene_id}: was given to the server and stays open")
            self._close(scene_id)

    def close(self) -> None:
        """Closes all."""
        with self._lock:
            for scene_id in list(self._scenes):
                self._close(scene_id)

    def _options(self, uploaded: bool) -> SourceOptions:
        return SourceOptions(allow_drivers=() if uploaded else self._drivers)

    def _add(self, scene: Scene) -> Scene:
        with self._lock:
            if scene.id in self._scenes:  # another request was faster
                scene.picture.close()
                return self._scenes[scene.id]
            scene.number = next(self._numbers)
            self._scenes[scene.id] = scene
            uploads = [s.id for s in self._scenes.values() if s.uploaded]
            old = uploads[: max(0, len(uploads) - self._uploads)]
            loose = [s.id for s in self._scenes.values() if not s.kept and s.id not in old]
            old += loose[: max(0, len(self._scenes) - len(old) - self._most)]
            for scene_id in old:
                if scene_id != scene.id:
                    self._close(scene_id)
        return scene

    def _close(self, scene_id: str) -> None:
        scene = self._scenes.pop(scene_id)
        scene.close()
        self._on_close(scene)


def check_same(opened: SourceSpec, now: SourceSpec) -> None:
    """Refuses a file that is another now than the one that is shown: maps of the two differ.

    Raises:
        RasterError: size or content differ.
    """
    known = {key: value for key, value in opened.identity.items() if key not in TIMES}
    if any(now.identity.get(key) != value for key, value in known.items()):
        raise RasterError(f"{opened.path}: changed since {AGAIN}")


def _id_of(name: str, spec: SourceSpec) -> str:
    """Readable, the same for the same file after a restart, another one when the file changes."""
    slug = re.sub(r"[^a-z0-9]+", "-", Path(name).stem.lower()).strip("-")[:40] or "raster"
    text = f"{spec.path} {sorted(spec.identity.items())}"
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
