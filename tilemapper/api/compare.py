"""`compare`: a raster beside its map, as figures and as one page that works offline."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from tilemapper.api.truth import truth_figures
from tilemapper.errors import DeviceError, ModelError, OptionError, RasterError
from tilemapper.networks.model import Model, open_model
from tilemapper.paths import real_path
from tilemapper.raster.atomic import check_suffix, write_text_atomic
from tilemapper.raster.drivers import check_drivers
from tilemapper.raster.jpeg import jpeg_bytes
from tilemapper.raster.png import write_png
from tilemapper.raster.webp import encode_within
from tilemapper.render.devices import PRECISIONS
from tilemapper.render.grid_shift import grid_shift
from tilemapper.render.targets import check_target
from tilemapper.report.alignment import Laid, Rendered, lay, open_rendered
from tilemapper.report.compare_page import Pictures, compare_page
from tilemapper.report.comparison import Comparison, ShiftFigures, compare_laid
from tilemapper.report.looks import take_looks
from tilemapper.report.picture import beside
from tilemapper.training.jobfile import load_palette
from tilemapper.training.legend import legend_of

CACHE_BYTES = 40 << 20
PICTURE_SIDE, SMALL_SIDE = 2048, 512
# Of encoded bytes, which base64 makes a third longer; the rest is left for closer looks and text.
SOURCE_BYTES, MAP_BYTES = 1_800_000, 1_000_000


def compare(
    source: str | Path,
    target: str | Path,
    page: str | Path | None = None,
    *,
    truth: str | Path | None = None,
    palette: str | Path | None = None,
    model: str | Path | Model | None = None,
    quicklook: str | Path | None = None,
    overwrite: bool = False,
    block: int | None = None,
    shift_blocks: int = 4,
    seed: int = 0,
    device: str = "auto",
    allow_drivers: Sequence[str] = (),
    timings: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compares a raster with the map that was made of it.

    Args:
        source: the raster; laid on the map's grid where it has another.
        target: the map; any raster of the same ground will do.
        page: HTML file to write, None for figures alone.
        truth: a true map of the ground to measure against; laid on the map's grid too.
        palette: job file with the classes to judge by, as for `tilemapper.evaluate`; by default the
            model's, or those of the maps set.
        model: the model, if not found by the name in the map's tags.
        quicklook: PNG of both side by side to write.
        overwrite: replace files that are there.
        block: side of the blocks that the map was rendered in.
        shift_blocks: sample blocks for the grid-shift figure; 0 leaves it out.
        seed: of all samples.
        device: to render the sample blocks on.
        allow_drivers: GDAL's names of drivers beyond the usual ones.
        timings: what is known of the render, for the page.

    Raises:
        RasterError: a raster cannot be read, or they do not lie on the same ground.
        JobError: there is no palette in the file.
        ModelError: ``model`` is named, and is not there or not the one that painted the map.
        TargetError, OptionError: a file may not be written, or not under this name.
        OptionError: this GDAL has not one of the drivers.
    """
    check_drivers(allow_drivers)
    outs = [out for out in (page, quicklook) if out is not None]
    given = [raster for raster in (source, target, truth) if raster is not None]
    _check_outputs(outs, given, overwrite=overwrite)
    if page is not None and quicklook is not None and real_path(page) == real_path(quicklook):
        raise OptionError(f"{page}: page and quicklook would be one file; name two")
    if quicklook is not None:
        check_suffix(Path(quicklook), "PNG", (".png",))
    if palette is not None and truth is None:
        raise OptionError(f"palette {palette}: judges figures against a true map; give --truth too")
    classes = None if palette is None else load_palette(Path(palette))
    with contextlib.ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
        rendered = stack.enter_context(open_rendered(str(target), allow_drivers=allow_drivers))
        laid = stack.enter_context(lay(str(source), rendered, allow_drivers=allow_drivers))
        overview = _overview(laid, rendered)
        small = _small(overview)
        both = beside(overview[0][0], overview[1][0]) if quicklook is not None else None
        pictures = None if page is None else _encoded(overview, native=_is_native(rendered))
        del overview  # tens of megabytes that are not needed beside what follows
        opened, notices = _model_of(rendered, model)
        card = None if opened is None else opened.card
        found = compare_laid(laid, rendered, card=card, block=block, seed=seed)
        found.notices += notices
        found.small = small
        found.timings = dict(timings or {})
        if shift_blocks and opened is not None:
            _add_shift(found, laid, opened, shift_blocks, seed, device)
        if truth is not None:
            true = stack.enter_context(
                lay(str(truth), rendered, crisp=True, allow_drivers=allow_drivers)
            )
            if classes is None:
                classes = () if card is None else card.palette
            legend = legend_of(classes)
            found.truth = truth_figures(rendered, true, legend=legend, seed=seed)
        _check_outputs(outs, given, overwrite=overwrite)  # another run may have ended since
        if page is not None and pictures is not None:
            found.page = str(page)
            looks = take_looks(laid, rendered, found.seams)
            write_text_atomic(Path(page), compare_page(found, replace(pictures, looks=looks)))
        if quicklook is not None and both is not None:
            found.quicklook = str(quicklook)
            write_png(Path(quicklook), both)
    return found


def _check_outputs(
    outs: Sequence[str | Path], given: Sequence[str | Path], *, overwrite: bool
) -> None:
    for out, raster in itertools.product(outs, given):
        check_target(str(raster), Path(out), overwrite=overwrite)


Overview = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def _overview(laid: Laid, rendered: Rendered) -> tuple[Overview, Overview]:
    """Both rasters as a whole, of one shape; refuses rasters that do not lie on one ground."""
    grid = rendered.spec
    shrink = 1.0 if _is_native(rendered) else max(grid.height, grid.width) / PICTURE_SIDE
    shape = max(1, round(grid.height / shrink)), max(1, round(grid.width / shrink))
    source, painted = laid.picture(*shape), rendered.view.picture(*shape)
    if not source[1].any():
        raise RasterError(
            f"{laid.path}: no valid pixel of it lies on {grid.path}; compare rasters of the same "
            "ground"
        )
    return source, painted


def _small(overview: tuple[Overview, Overview]) -> tuple[bytes, bytes]:
    """Both pictures as JPEGs of 512 px at most, white where they are invalid."""
    step = -(-max(overview[0][0].shape[:2]) // SMALL_SIDE)
    source, painted = (
        jpeg_bytes(np.where(valid[::step, ::step, None], rgb[::step, ::step], np.uint8(255)))
        for rgb, valid in overview
    )
    return source, painted


def _is_native(rendered: Rendered) -> bool:
    """Whether the pictures hold every pixel of the map."""
    return max(rendered.spec.height, rendered.spec.width) <= PICTURE_SIDE


def _encoded(overview: tuple[Overview, Overview], *, native: bool) -> Pictures:
    """The pictures as bytes; a map's own pixels stay what they are, where they fit."""
    (source, source_valid), (painted, valid) = overview
    return Pictures(
        source=encode_within(source, source_valid, SOURCE_BYTES, crisp=False),
        map=encode_within(painted, valid, MAP_BYTES, crisp=native),
        height=len(source),
        width=source.shape[1],
        looks=[],
    )


def _model_of(
    rendered: Rendered, named: str | Path | Model | None
) -> tuple[Model | None, list[str]]:
    """The model that painted a map, and what to say if it is not at hand."""
    tags = rendered.tags
    if named is None and "TILEMAPPER_MODEL" not in tags:
        return None, []
    try:
        model = named if isinstance(named, Model) else open_model(named or tags["TILEMAPPER_MODEL"])
    except ModelError:
        if named is not None:
            raise
        return None, [
            f"Model {tags['TILEMAPPER_MODEL']} is not found here, so classes and the grid-shift "
            "figure are missing; name it with --model."
        ]
    if model.card.digest == tags.get("TILEMAPPER_MODEL_SHA256", model.card.digest):
        return model, []
    if named is not None:
        raise ModelError(
            f"{model.folder}: is not the model that painted {rendered.spec.path} (its sha256 "
            "differs from the map's tag); name the right one with --model"
        )
    return None, [
        f"The model {model.card.name} found here is another than the one that painted the map, "
        "so classes and the grid-shift figure are missing."
    ]


def _add_shift(
    found: Comparison, laid: Laid, model: Model, blocks: int, seed: int, device: str
) -> None:
    """Measures grid-shift invariance, if this source can be rendered again."""
    # As the map was rendered: in another precision, or without its symmetries, it is another map.
    plan = found.plan or {}
    precision = plan.get("precision")
    try:
        shift = grid_shift(
            laid.planned or laid.path,
            model,
            overlap=found.lattice.overlap,
            blocks=blocks,
            seed=seed,
            device=device,
            precision=precision if precision in PRECISIONS else "auto",
            tta=plan.get("tta") is True,
        )
    except (RasterError, DeviceError) as error:
        found.notices.append(f"Grid shift not measured: {error}.")
        return
    values = asdict(shift)
    values.pop("pixels")
    found.shift = ShiftFigures(**values)
