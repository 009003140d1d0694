"""Windows of a raster as it stands on the disk, at a bounded cost however far out one looks.

The file's overviews serve where it has any. Where it has none, an XYZ tile averages at most
16 x 16 pixels into one; farther out a preview serves, made once in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import RasterError, TilemapperError
from tilemapper.raster.levels import LevelView, overview_count
from tilemapper.raster.spec import SourceSpec
from tilemapper.serve.drawing import averaged, draw
from tilemapper.serve.frame import Frame, Places
from tilemapper.serve.views import Views

MOST_AVERAGED = 16  # pixels of a level along an axis that become one
PREVIEW_SIDE = 4096
_PANEL = 4096


class Picture:
    """A raster, drawn from its file.

    Args:
        spec: of the source at its own pixels.
        placed: says where its pixels lie, if the file's own place does not.
        smooth: interpolate where pixels are enlarged.
    """

    def __init__(
        self, spec: SourceSpec, *, placed: SourceSpec | None = None, smooth: bool = True
    ) -> None:
        self.spec, self._placed, self._smooth = spec, placed or spec, smooth
        self._levels: list[_Level] = []
        for overview in [None, *range(overview_count(spec))]:
            level = _Level(spec, overview)
            # A level of a single row or column is no smaller picture of the raster.
            if overview is None or min(level.height, level.width) > 1:
                self._levels.append(level)
        self._preview: _Preview | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()

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
        preview = self._prepared(level)
        height, width = preview.keep.shape
        tile = self._draw(preview.read, places, height, width, step)
        if not preview.done.is_set():
            raise Preparing(tile)
        return tile

    def close(self) -> None:
        """Closes the files; a preview in the making is given up."""
        self._closed.set()
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

    def _prepared(self, level: _Level) -> _Preview:
        with self._lock:
            if self._preview is None:
                self._preview = _Preview(level, self._closed)
            preview = self._preview
        # A small one is there in a moment: no need to ask for it again.
        preview.done.wait(timeout=0.3)
        if preview.error is not None:
            with self._lock:
                self._preview = None  # the next request tries again
            raise preview.error
        return preview


class Preparing(Exception):
    """The preview is in the making; ``tile`` shows what there is of it, as `Picture.tile`."""

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


class _Preview:
    """A whole level averaged to at most 4096 px a side, in memory."""

    def __init__(self, level: _Level, closed: threading.Event) -> None:
        self._level, self._closed = level, closed
        self._group = max(1, -(-max(level.height, level.width) // PREVIEW_SIDE))
        shape = -(-level.height // self._group), -(-level.width // self._group)
        self._rgb = np.zeros((*shape, 3), np.uint8)
        self.keep = np.zeros(shape, bool)
        self.done = threading.Event()
        self.error: TilemapperError | None = None
        threading.Thread(target=self._make, name="preview", daemon=True).start()

    def read(
        self, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        here = np.s_[row : row + height, col : col + width]
        return self._rgb[here], self.keep[here]

    def _make(self) -> None:
        try:
            with self._level.views.lent() as view:
                self._fill(view)
        except TilemapperError as error:
            self.error = error
        except Exception as error:
            # No room for it, say. The part that there is must not pass for the whole.
            self.error = RasterError(f"no preview of this raster could be made: {error!r}")
        finally:
            self.done.set()

    def _fill(self, view: LevelView) -> None:
        height, width, group = view.height, view.width, self._group
        panel = max(1, _PANEL // group) * group
        strip = max(1, 512 // group) * group
        for row in range(0, height, strip):
            for col in range(0, width, panel):
                if self._closed.is_set():
                    return
                rgb, keep = view.read(row, col, min(strip, height - row), min(panel, width - col))
                rgb, keep = averaged(rgb, keep, group)
                top, left = row // group, col // group
                here = np.s_[top : top + keep.shape[0], left : left + keep.shape[1]]
                self._rgb[here], self.keep[here] = rgb, keep
