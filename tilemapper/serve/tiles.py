"""From a request for an XYZ tile to its PNG, or to the reason why there is none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import RasterError, ShortageError
from tilemapper.networks.model import Model
from tilemapper.serve.bounded import BoundedCache
from tilemapper.serve.drawing import EMPTY_PNG, draw, png_of
from tilemapper.serve.frame import DEEPEST, Frame
from tilemapper.serve.limits import GoneError
from tilemapper.serve.livemap import LiveMap
from tilemapper.serve.picture import Picture, Preparing
from tilemapper.serve.scenes import Scene, Scenes

SOURCE = "source"  # the layer that shows the raster itself
ZOOM_IN, PREPARING = "zoom-in", "preparing"


@dataclass(frozen=True)
class Tile:
    """A PNG and no note; or ``zoom-in``, or ``preparing`` with a PNG of what there is yet."""

    png: bytes | None
    note: str = ""


class Tiles:
    """Answers requests for tiles; called from several threads.

    Args:
        scenes: that are open.
        models: by name.
        rendered: the finished map of a scene by a model as a picture; None if there is none.
        live_tiles: generator tiles that one tile may cost.
        cache_bytes: of PNGs that are kept.
    """

    def __init__(
        self,
        scenes: Scenes,
        models: dict[str, Model],
        rendered: Callable[[Scene, LiveMap], Picture | None],
        *,
        live_tiles: int,
        cache_bytes: int,
    ) -> None:
        self._scenes, self._models, self._rendered = scenes, models, rendered
        self._live_tiles = live_tiles
        self._pngs: BoundedCache[bytes] = BoundedCache(cache_bytes, len)

    @property
    def held_bytes(self) -> int:
        """Of PNGs that are kept."""
        return self._pngs.held_bytes

    def tile(
        self, scene_id: str, layer: str, z: int, x: int, y: int, gone: threading.Event
    ) -> Tile:
        """A tile of a layer: ``source``, or the name of a model.

        Raises:
            GoneError: there is no such scene, layer or tile.
            TilemapperError: the raster cannot be read or painted; see `LiveMap.window`.
            Dropped: ``gone`` was set meanwhile.
        """
        scene = self._scenes.get(scene_id)
        if not (0 <= z <= DEEPEST and 0 <= x < 1 << z and 0 <= y < 1 << z):
            raise GoneError(f"{z}/{x}/{y}: no such tile")
        live = None if layer == SOURCE else self._scenes.map(scene, self.model(layer))
        picture = scene.picture if live is None else self._rendered(scene, live)
        key = (scene_id, layer, picture is not None, z, x, y)
        png = self._pngs.get(key)
        if png is None:
            try:
                if picture is not None:
                    tile = picture.tile(scene.frame, z, x, y)
                else:
                    assert live is not None
                    if z < self.live_zoom(scene, live):
                        return Tile(None, ZOOM_IN)
                    tile = live_tile(live, scene.frame, z, x, y, gone)
            except Preparing as preparing:
                part = EMPTY_PNG if preparing.tile is None else png_of(preparing.tile)
                return Tile(part, PREPARING)
            except (RasterError, ShortageError) as error:
                raise type(error)(scene.plain(str(error))) from error
            png = EMPTY_PNG if tile is None else png_of(tile)
            self._pngs.put(key, png)
        return Tile(png)

    def model(self, name: str) -> Model:
        """The model of a layer. Raises GoneError if there is none of this name."""
        if name not in self._models:
            raise GoneError(f"{name}: no such layer; source, {', '.join(self._models)} are there")
        return self._models[name]

    def live_zoom(self, scene: Scene, live: LiveMap) -> int:
        """The least zoom at which a tile of the map is rendered live."""
        zoom = scene.frame.native_zoom(live.spec)
        while zoom > 0 and live.cost(scene.frame.step(live.spec, zoom - 1)) <= self._live_tiles:
            zoom -= 1
        return zoom

    def forget(self, scene_id: str) -> None:
        """Lets go of a scene's tiles."""
        self._pngs.drop(lambda key: isinstance(key, tuple) and key[0] == scene_id)


def live_tile(
    live: LiveMap, frame: Frame, z: int, x: int, y: int, gone: threading.Event
) -> NDArray[np.uint8] | None:
    """A tile of a map, rendered now; (256, 256, 4) uint8, None where it is empty."""
    places = frame.places(live.spec, z, x, y)
    if places is None:
        return None
    return draw(
        lambda row, col, height, width: live.window(row, col, height, width, gone),
        places,
        height=live.spec.height,
        width=live.spec.width,
        step=frame.step(live.spec, z),
        smooth=False,
    )
