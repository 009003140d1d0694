"""Windows of a raster as it stands on the disk, at a bounded cost however far out one looks.

The file's overviews serve where it has any. Where it has none, an XYZ tile averages at most
16 x 16 pixels into one; farther out a preview serves, made in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tilemapper.raster.levels import LevelView, overview_count
from tilemapper.raster.spec import SourceSpec
from tilemapper.serve.drawing import draw
from tilemapper.serve.frame import Frame, Places
from tilemapper.serve.limits import GoneError
from tilemapper.serve.previews import Preview, Previews
from tilemapper.serve.views import Views

MOST_AVERAGED = 16  # pixels of a level along an axis that become one


class Picture:
    """A raster, drawn from its file.

    Args:
        spec: of the source at its own pixels.
        previews: those of the server.
        placed: says where its pixels lie, if the file's own place does not.
        smooth: interpolate where pixels are enlarged.
    """

    def __init__(
        self,
        spec: SourceSpec,
        previews: Previews,
        *,
        placed: SourceSpec | None = None,
        smooth: bool = True,
    ) -> None:
        self.spec, self._placed, self._smooth = spec, placed or spec, smooth
        self._previews = previews
        self._levels: list[_Level] = []
        for overview in [None, *range(overview_count(spec))]:
            level = _Level(spec, overview)
            # A level of a single row or column is no smaller picture of the raster.
            if overview is None or min(level.height, level.width) > 1:
                self._levels.append(level)
        self._closed = threading.Event()

    def tile(self, frame: Frame, z: int, x: int, y: int) -> NDArray[np.uint8] | None:
        """A tile, (256, 256, 4) uint8; None where it is empty.

        Raises:
            Preparing: the preview is being made.
            RasterError: the file cannot be read.
        """
        places = frame.places(self._placed, z, x, y)
        if places is None:
            return None
        step = frame.step(self._placed, z)
        fitting = [level for level in self._levels if level.scale <= max(step, 1.0) * 1.01]
        level = fitting[-1]
        if step / level.scale <= MOST_AVERAGED:
            with level.views.lent() as view:
                return self._draw(view.read, places, level.height, level.width, step)
        return self._from_preview(level, places, step)

    def close(self) -> None:
        """Closes the files; a preview in the making is given up."""
        self._closed.set()
        self._previews.drop(self)
        for level in self._levels:
            level.views.close()

    def _draw(
        self,
        read: Callable[..., tuple[NDArray[np.uint8], NDArray[np.bool_]]],
        places: Places,
        height: int,
        width: int,
        step: float,
    ) -> NDArray[np.uint8] | None:
        rows, cols = places
        down, across = self.spec.height / height, self.spec.width / width
        return draw(
            read,
            (rows / down, cols / across),
            height=height,
            width=width,
            step=step / min(down, across),
            smooth=self._smooth,
        )

    def _from_preview(self, level: _Level, places: Places, step: float) -> NDArray[np.uint8] | None:
        def begin(side: int) -> Preview:
            if self._closed.is_set():  # nobody would let go of it
                raise GoneError("the raster was closed meanwhile; open it again")
            return Preview(
                level.views,
                height=level.height,
                width=level.width,
                side=side,
                closed=self._closed,
            )

        preview = self._previews.of(self, begin)
        if preview is None:
            raise Preparing(None)
        # A small one is there in a moment: no need to ask for it again.
        is_whole = preview.done.wait(timeout=0.3)
        if preview.error is not None:
            self._previews.drop(self, preview)  # the next request tries again
            raise preview.error
        height, width = preview.keep.shape
        tile = self._draw(preview.read, places, height, width, step)
        if not is_whole:  # it may have ended meanwhile, and badly
            raise Preparing(tile)
        return tile


class Preparing(Exception):
    """The preview is in the making, or waits for another's; ``tile`` shows what there is of it."""

    def __init__(self, tile: NDArray[np.uint8] | None) -> None:
        super().__init__("the preview is being made")
        self.tile = tile


class _Level:
    """The file's pixels, or an overview's; ``scale``: of the file's pixels to one of its own."""

    def __init__(self, spec: SourceSpec, overview: int | None) -> None:
        self.views = Views(lambda: LevelView(spec, overview))
        with self.views.lent() as view:
            self.height, self.width = view.height, view.width
        self.scale = min(spec.height / self.height, spec.width / self.width)
