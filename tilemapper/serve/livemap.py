"""Windows of a map that is rendered as they are asked for, the same pixels as `render` writes.

The raster's one lattice cuts it into cells: the pixels from one tile's start to the next one's,
which at most four tiles cover. A window is put together from its cells; those that are missing
are rendered, by the same path as a block, and kept while there is room.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout

import numpy as np
from numpy.typing import NDArray

from tilemapper.networks.model import Model
from tilemapper.raster.lattice import Block, Lattice, overlap_for
from tilemapper.raster.source import SourceView
from tilemapper.raster.spec import SourceSpec
from tilemapper.render.block import blend_rows, class_rows, grey_rows
from tilemapper.render.layers import palette_of
from tilemapper.render.rows import PredictedRow, TileRow
from tilemapper.render.strips import read_tile_rows
from tilemapper.serve.bounded import BoundedCache
from tilemapper.serve.drawing import Window, group_of
from tilemapper.serve.frame import SIDE
from tilemapper.serve.generator import Generator, Prediction
from tilemapper.serve.limits import BusyError, Dropped
from tilemapper.serve.views import Views

Cell = NDArray[np.uint8]  # (height, width, 4): RGB, and 255 where kept


class LiveMap:
    """A scene through a model.

    Args:
        name: stable, names the scene in the caches.
        spec: of the source on the model's grid.
        model: that paints.
        generator: whose thread runs it.
        cells: where finished cells are kept, for all maps of a server.
        overlap: of the lattice, as for `render`.
        wait_s: how long a request waits for the generator.
    """

    def __init__(
        self,
        name: str,
        spec: SourceSpec,
        model: Model,
        generator: Generator,
        cells: BoundedCache[Cell],
        *,
        overlap: int | None = None,
        wait_s: float = 60.0,
    ) -> None:
        self.name, self.spec, self.model = name, spec, model
        tile = model.card.tile
        self.lattice = Lattice(spec.height, spec.width, overlap_for(tile, overlap), tile)
        self._key = (name, model.card.digest)
        self._generator, self._cells, self._wait_s = generator, cells, wait_s
        self._views = Views(lambda: SourceView(spec))
        self._row_edges = _edges(self.lattice.rows.starts, spec.height)
        self._col_edges = _edges(self.lattice.cols.starts, spec.width)
        self._palette = palette_of(model) if model.card.head == "palette" else None

    def cost(self, step: float) -> int:
        """Generator tiles, at most, of an XYZ tile whose pixels span ``step`` of the grid's."""
        reach = SIDE * max(step, 1.0) + 2 * group_of(step)
        along = int(reach // self.lattice.rows.stride) + 3
        rows, cols = len(self.lattice.rows.starts), len(self.lattice.cols.starts)
        return min(along, rows) * min(along, cols)

    def window(self, row: int, col: int, height: int, width: int, gone: threading.Event) -> Window:
        """RGB, (height, width, 3) uint8, and what is kept, (height, width), of a window.

        Raises:
            RasterError, ModelError, DeviceError: the source cannot be read, or not painted.
            BusyError: the generator did not come to it in time.
            Dropped: ``gone`` was set.
        """
        rows = _cells_over(self._row_edges, row, row + height)
        cols = _cells_over(self._col_edges, col, col + width)
        found = {(i, j): self._cells.get((*self._key, i, j)) for i in rows for j in cols}
        missing = [place for place, cell in found.items() if cell is None]
        if missing:
            found.update(self._render(missing, gone))
        top, left = int(self._row_edges[rows[0]]), int(self._col_edges[cols[0]])
        lines = [np.concatenate([_there(found[i, j]) for j in cols], axis=1) for i in rows]
        whole = np.concatenate(lines)
        part = whole[row - top : row - top + height, col - left : col - left + width]
        return part[..., :3], part[..., 3] > 0

    def close(self) -> None:
        """Closes the source; caches are the caller's."""
        self._views.close()

    def _render(
        self, missing: list[tuple[int, int]], gone: threading.Event
    ) -> dict[tuple[int, int], Cell]:
        """The cells of the least rectangle that holds those that are missing."""
        rows = range(min(i for i, _ in missing), max(i for i, _ in missing) + 1)
        cols = range(min(j for _, j in missing), max(j for _, j in missing) + 1)
        top, left = int(self._row_edges[rows[0]]), int(self._col_edges[cols[0]])
        bottom, right = int(self._row_edges[rows[-1] + 1]), int(self._col_edges[cols[-1] + 1])
        block = Block(top, left, bottom - top, right - left)
        pixels = self._paint(block, gone)
        cells = {}
        for i in rows:
            for j in cols:
                down = slice(int(self._row_edges[i]) - top, int(self._row_edges[i + 1]) - top)
                over = slice(int(self._col_edges[j]) - left, int(self._col_edges[j + 1]) - left)
                cells[i, j] = pixels[down, over].copy()
                self._cells.put((*self._key, i, j), cells[i, j])
        return cells

    def _paint(self, block: Block, gone: threading.Event) -> Cell:
        """A block's pixels, by the path of `render`: read, predict, blend."""
        with self._views.lent() as view:
            strips = list(read_tile_rows(view, self.lattice, block, self.spec.fill))
        first = self.lattice.cols.tiles_over(block.col, block.col + block.width)[0]
        futures = [self._ask(strip, first, gone) for strip in strips]
        finished = []
        predicted = self._predicted(strips, futures, gone)
        for part in blend_rows(predicted, self.lattice, block, lent=True):
            rgb = grey_rows(part).transpose(1, 2, 0)
            if self._palette is not None:
                rgb = self._palette[class_rows(part)] * part.keep[..., None]
            alpha = np.where(part.keep, 255, 0).astype(np.uint8)
            finished.append(np.concatenate([rgb, alpha[..., None]], axis=2))
        return np.concatenate(finished)

    def _ask(
        self, strip: TileRow, first: int, gone: threading.Event
    ) -> list[tuple[int, Future[Prediction]]]:
        places = [int(place) for place in strip.active]
        keyed = [
            ((*self._key, strip.index, first + place), strip.tiles[place].copy())
            for place in places
        ]
        return list(zip(places, self._generator.ask(self.model, keyed, gone), strict=True))

    def _predicted(
        self,
        strips: list[TileRow],
        futures: list[list[tuple[int, Future[Prediction]]]],
        gone: threading.Event,
    ) -> Iterator[PredictedRow]:
        while strips:  # both lists are used up, so that no row is held longer than it is needed
            strip, row = strips.pop(0), futures.pop(0)
            predictions: list[NDArray[np.int16] | None] = [None] * len(strip.tiles)
            for place, future in row:
                try:
                    predictions[place] = future.result(timeout=self._wait_s)
                except CancelledError as error:
                    raise Dropped from error
                except FutureTimeout as error:
                    gone.set()
                    raise BusyError("the generator has too much to do; come again") from error
            yield PredictedRow(strip.index, strip.keep, predictions, self.model.card.channels)


def _edges(starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """First pixel of each cell along an axis, and the end of the last, (n + 1,)."""
    return np.append(np.clip(starts, 0, length), length)


def _cells_over(edges: NDArray[np.int64], first: int, end: int) -> range:
    """Indices of the cells that hold the pixels [first, end)."""
    low = int(np.searchsorted(edges, first, side="right")) - 1
    high = int(np.searchsorted(edges, end, side="left"))
    return range(max(low, 0), high)


def _there(cell: Cell | None) -> Cell:
    assert cell is not None
    return cell
