"""Cuts georeferenced pairs from an imagery raster and a map raster of the same ground."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from tilemapper.errors import OptionError, PairError, RasterError
from tilemapper.raster.atomic import write_text_atomic
from tilemapper.raster.identity import check_unchanged
from tilemapper.raster.source import SourceOptions, SourceSpec, SourceView, inspect_source
from tilemapper.raster.tiles import WarpedRgb, write_tile
from tilemapper.training.images import SMALLEST_SIDE
from tilemapper.training.newfolder import check_new, new_folder
from tilemapper.training.split import OVERLAPS_NAME

_Tile = tuple[NDArray[np.uint8], NDArray[np.bool_]]  # colours and validity
_Line = tuple[str, int, int, *tuple[float, ...]]  # of the index
INDEX_NAME = "index.csv"
# Of a finished folder, in this order: the images of one side alone are no pairs to any reader, and
# those of both sides must not be there without what says which of them overlap.
PARTS = (OVERLAPS_NAME, "A", "B", INDEX_NAME)
COLUMNS = ("name", "row", "col", "left", "bottom", "right", "top", "valid_a", "valid_b")
RESAMPLINGS = ("nearest", "bilinear", "average")


@dataclass(frozen=True)
class CutOptions:
    """How pairs are cut.

    ``gsd``: metres a pixel of the pairs, "native" for the imagery's own. ``tile``: side in
    pixels. ``stride``: from tile to tile, ``tile`` if None. ``min_valid``: least share of valid
    pixels in either image. ``resampling``: of the map.

    Raises:
        OptionError: a value makes no sense.
    """

    gsd: str | float = "native"
    tile: int = 512
    stride: int | None = None
    min_valid: float = 1.0
    resampling: str = "nearest"

    def __post_init__(self) -> None:
        if self.tile < SMALLEST_SIDE or (self.stride is not None and self.stride < 1):
            raise OptionError(
                f"tile {self.tile}, stride {self.stride}: at least {SMALLEST_SIDE} and 1 are needed"
            )
        if not 0 < self.min_valid <= 1:
            raise OptionError(f"min_valid: {self.min_valid} found, above 0 to 1 is needed")
        if self.resampling not in RESAMPLINGS:
            raise OptionError(f"resampling: {self.resampling!r} is none of {RESAMPLINGS}")


@dataclass(frozen=True)
class CutResult:
    """Names of the pairs written, how many places were skipped, and lines for the user."""

    names: list[str]
    skipped: int
    notices: tuple[str, ...]


def cut_pairs(
    imagery: str,
    map_path: str,
    out: Path,
    *,
    options: CutOptions | None = None,
    on_place: Callable[[int, int], None] = lambda _done, _total: None,
) -> CutResult:
    """Writes ``out/A/NAME.tif`` (imagery), ``out/B/NAME.tif`` (map) and ``out/index.csv``.

    With a stride below the tile also ``out/overlaps.json``, which keeps ground that is held out
    out of training. Until all of it is written, it lies in ``out/.part``; after a kill the same
    call begins anew.

    The map is warped onto the imagery's grid at the wanted resolution; CRS, resolution and
    footprint may differ. A name tells row and column of the tile's first pixel on that grid.

    Args:
        imagery: any raster that can be rendered.
        map_path: RGB or paletted raster.
        out: a folder that is new or empty.
        options: tile size, resolution and so on.
        on_place: called with the number of places looked at, and of all.

    Raises:
        TargetError: the folder is in use, or cannot be written.
        DiskFullError: the disk is full. LockedError: another run is filling the folder.
        RasterError: a raster cannot be read, or has no CRS.
        PairError: not one place has enough valid pixels in both.
    """
    options = options or CutOptions()
    check_new(out, PARTS)
    spec = inspect_source(imagery, SourceOptions(gsd=options.gsd), None)
    if spec.crs_wkt is None:
        raise RasterError(f"{imagery}: no CRS found, one is needed; assign it with gdal_edit")
    places = list(_places(spec.height, spec.width, options))
    with new_folder(out, PARTS) as part:
        for side in "AB":
            (part / side).mkdir()
        lines = _cut(spec, map_path, part, places, options, on_place)
        if not lines:
            raise PairError(
                f"{imagery}, {map_path}: none of {len(places)} places of {options.tile} px has "
                f"{options.min_valid:.0%} valid pixels in both; check that they show the same "
                "ground, or lower --tile or --min-valid"
            )
        check_unchanged(imagery, spec.identity)
        if overlapping := _overlapping(lines, options):
            write_text_atomic(part / OVERLAPS_NAME, json.dumps(overlapping))
        write_text_atomic(part / INDEX_NAME, _index(lines))
    return CutResult([line[0] for line in lines], len(places) - len(lines), spec.notices)


def _cut(
    spec: SourceSpec,
    map_path: str,
    out: Path,
    places: list[tuple[int, int]],
    options: CutOptions,
    on_place: Callable[[int, int], None],
) -> list[_Line]:
    """Writes the pairs of all places that have enough valid pixels; their lines of the index."""
    grid = Affine(*spec.transform)
    lines: list[_Line] = []
    with (
        SourceView(spec) as view,
        WarpedRgb(
            map_path, crs_wkt=str(spec.crs_wkt), transform=grid, height=spec.height,
            width=spec.width, resampling=options.resampling,
        ) as warped,
    ):  # fmt: skip
        for done, (row, col) in enumerate(places, start=1):
            window = {"row": row, "col": col, "height": options.tile, "width": options.tile}
            # The map first: it is usually the smaller one, and most places outside it end here.
            target = warped.read(**window)
            if target[1].mean() >= options.min_valid:
                source = view.read(**window)
                if source[1].mean() >= options.min_valid:
                    name = f"r{row:06d}_c{col:06d}"
                    place = _placed(grid, row, col)
                    _write_pair(
                        out, name, source, target, crs_wkt=str(spec.crs_wkt), transform=place
                    )
                    shares = float(source[1].mean()), float(target[1].mean())
                    lines.append((name, row, col, *_bounds(place, options.tile), *shares))
            on_place(done, len(places))
    return lines


def _places(height: int, width: int, options: CutOptions) -> Iterator[tuple[int, int]]:
    """First pixels of all tiles that lie wholly on the grid, row by row."""
    stride = options.stride or options.tile
    for row in range(0, height - options.tile + 1, stride):
        for col in range(0, width - options.tile + 1, stride):
            yield row, col


def _write_pair(
    out: Path, name: str, source: _Tile, target: _Tile, *, crs_wkt: str, transform: Affine
) -> None:
    for side, (image, valid) in (("A", source), ("B", target)):
        path = out / side / f"{name}.tif"
        write_tile(path, _filled(image, valid), crs_wkt=crs_wkt, transform=transform)


def _filled(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Invalid pixels in the median colour of the valid ones: black would be learned as ground."""
    if valid.all():
        return image
    filled = image.copy()
    filled[~valid] = np.median(image[valid], axis=0).astype(np.uint8)
    return filled


def _placed(grid: Affine, row: int, col: int) -> Affine:
    """The transform of a window of the grid that begins at this pixel."""
    # By hand: affine spells a product `*` before version 3 and `@` after it.
    a, b, c, d, e, f = tuple(grid)[:6]
    return Affine(a, b, a * col + b * row + c, d, e, d * col + e * row + f)


def _bounds(transform: Affine, tile: int) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of a tile, also when it is rotated."""
    corners = [_placed(transform, row, col) for row in (0, tile) for col in (0, tile)]
    x, y = [corner.c for corner in corners], [corner.f for corner in corners]
    return min(x), min(y), max(x), max(y)


def _overlapping(lines: list[_Line], options: CutOptions) -> list[tuple[str, str]]:
    """Names of each two pairs that show common ground, as `split_pairs` reads them."""
    stride = options.stride or options.tile
    names = {(row, col): name for name, row, col, *_ in lines}
    down = range(0, options.tile, stride)
    steps = [(y, x) for y in down for across in down for x in {across, -across} if (y, x) > (0, 0)]
    return [
        (name, other)
        for (row, col), name in names.items()
        for y, x in steps
        if (other := names.get((row + y, col + x))) is not None
    ]


def _index(lines: list[_Line]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    return text.getvalue()
