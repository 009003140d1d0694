"""Previews of rasters without overviews: those of a whole server are bounded, and made in turn."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import RasterError, TilemapperError
from tilemapper.raster.levels import LevelView
from tilemapper.serve.bounded import BoundedCache
from tilemapper.serve.drawing import averaged
from tilemapper.serve.limits import GoneError
from tilemapper.serve.views import Views

MOST_SIDE = 4096
_PANEL = 4096


class Preview:
    """A whole level averaged to at most ``side`` pixels a side, made in a thread of its own.

    Args:
        views: of the level.
        height: of the level.
        width: of the level.
        side: in pixels.
        closed: set when the raster is closed; the preview is given up then.
    """

    def __init__(
        self,
        views: Views[LevelView],
        *,
        height: int,
        width: int,
        side: int,
        closed: threading.Event,
    ) -> None:
        self._views, self._height, self._width, self._closed = views, height, width, closed
        self._group = max(1, -(-max(height, width) // side))
        shape = -(-height // self._group), -(-width // self._group)
        self._rgb = np.zeros((*shape, 3), np.uint8)
        self.keep = np.zeros(shape, bool)
        self.done = threading.Event()
        self.error: TilemapperError | None = None
        threading.Thread(target=self._make, name="preview", daemon=True).start()

    @property
    def nbytes(self) -> int:
        """What it holds, finished or not."""
        return self._rgb.nbytes + self.keep.nbytes

    def read(
        self, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A window of what there is of it yet; see `tilemapper.serve.drawing.Reader`."""
        here = np.s_[row : row + height, col : col + width]
        return self._rgb[here], self.keep[here]

    def _make(self) -> None:
        try:
            with self._views.lent() as view:
                self._fill(view)
        except TilemapperError as error:
            self.error = error
        except Exception as error:
            # No room for it, say. The part that there is must not pass for the whole.
            self.error = RasterError(f"no preview of this raster could be made: {error!r}")
        finally:
            self.done.set()

    def _fill(self, view: LevelView) -> None:
        height, width, group = self._height, self._width, self._group
        panel = max(1, _PANEL // group) * group
        strip = max(1, 512 // group) * group
        for row in range(0, height, strip):
            for col in range(0, width, panel):
                if self._closed.is_set():
                    raise GoneError("the raster was closed meanwhile; open it again")
                rgb, keep = view.read(row, col, min(strip, height - row), min(panel, width - col))
                rgb, keep = averaged(rgb, keep, group)
                top, left = row // group, col // group
                here = np.s_[top : top + keep.shape[0], left : left + keep.shape[1]]
                self._rgb[here], self.keep[here] = rgb, keep


class Previews:
    """The previews that a server holds; safe to use from several threads.

    Args:
        limit_bytes: of all of them, with the one in the making. Two find room always, so that
            what one looks at is not dropped for each raster beside it: with a small limit
            previews are coarse.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._held: BoundedCache[Preview] = BoundedCache(limit_bytes, lambda held: held.nbytes)
        # A pixel has three bytes of colour and one that says whether it is kept.
        self._side = max(1, min(MOST_SIDE, math.isqrt(limit_bytes // (2 * 4))))
        self._made = threading.Event()  # the latest one
        self._made.set()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Of all previews."""
        return self._held.held_bytes

    def of(self, owner: Hashable, begin: Callable[[int], Preview]) -> Preview | None:
        """The owner's preview, finished or not; None while that of another one is made.

        One at a time: else one in the making could be dropped for the next, and none be finished.

        Args:
            owner: a picture.
            begin: begins its preview, of so many pixels a side at most.
        """
        with self._lock:
            preview = self._held.get(owner)
            if preview is None and self._made.is_set():
                preview = begin(self._side)
                self._made = preview.done
                self._held.put(owner, preview)
            return preview

    def drop(self, owner: Hashable, failed: Preview | None = None) -> None:
        """Lets go of the owner's preview; the next request begins another.

        failed: let go of this one alone: another request may have begun the next by now.
        """
        with self._lock:
            if failed is None or self._held.get(owner) is failed:
                self._held.drop(lambda key: key == owner)
