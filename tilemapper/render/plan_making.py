"""Puts a plan together from options that are all decided; refuses what cannot be rendered."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rasterio.crs import CRS

from tilemapper.errors import OptionError, RasterError
from tilemapper.networks.model import Model
from tilemapper.raster.atomic import GEOTIFF, check_suffix
from tilemapper.raster.creation_options import check_creation_options
from tilemapper.raster.encode import FILE_BLOCK, Encoding, encoding_of, stored_crs
from tilemapper.raster.lattice import Lattice
from tilemapper.raster.opening import crs_name
from tilemapper.raster.spec import SourceSpec
from tilemapper.render.plan import DEFAULT_BLOCK, MOST_BATCH, Layer, Plan

DRIVERS = ("COG", "GTiff")


def make_plan(
    source: SourceSpec,
    model: Model,
    target: Path,
    *,
    overlap: int,
    block: int | None,
    device: str,
    precision: str,
    batch_size: int,
    driver: str,
    creation_options: Mapping[str, str],
    classes: Path | None = None,
    uncertainty: Path | None = None,
    tta: bool = False,
    compiled: bool = False,
) -> Plan:
    """Checks the options against each other and puts the plan together.

    Raises:
        OptionError: an option cannot be used, alone or with the others.
        RasterError: the output cannot hold the source's CRS.
    """
    if driver not in DRIVERS:
        raise OptionError(f"--driver {driver!r}: unknown, one of {', '.join(DRIVERS)} is needed")
    check_creation_options(driver, creation_options)
    if not 1 <= batch_size <= MOST_BATCH:
        raise OptionError(f"--batch-size {batch_size}: must be from 1 to {MOST_BATCH}")
    if block is not None and (block < FILE_BLOCK or block % FILE_BLOCK):
        raise OptionError(f"--block {block}: must be a multiple of {FILE_BLOCK}, the file block")
    if classes is not None and model.card.head != "palette":
        raise OptionError(
            f"--classes: model {model.card.name} paints RGB and has no classes; use a palette model"
        )
    encoding = encoding_of(creation_options) or Encoding()
    layers = [Layer("map", str(target), 3, encoding)]
    palette = tuple((entry.name, entry.colour) for entry in model.card.palette)
    if classes is not None:
        colours = {index: colour for index, (_, colour) in enumerate(palette)}
        layers.append(
            Layer("classes", str(classes), 1, Encoding(colour_map=colours), average=False)
        )
    if uncertainty is not None:
        layers.append(Layer("uncertainty", str(uncertainty), 1, Encoding()))
    _check_targets(layers)
    for layer in layers:
        check_suffix(Path(layer.target), "GeoTIFF", GEOTIFF, ", and convert it with gdal_translate")
    if source.crs_wkt and stored_crs(CRS.from_wkt(source.crs_wkt)) is None:
        raise RasterError(
            f"{source.path}: a GeoTIFF cannot hold its CRS ({crs_name(source.crs_wkt)}); "
            "reproject it to another one with gdalwarp -t_srs"
        )
    Lattice(source.height, source.width, overlap, model.card.tile)  # refuses a wrong overlap now
    return Plan(
        source=source,
        model_folder=str(model.folder),
        model_name=model.card.name,
        model_digest=model.card.digest,
        palette=palette,
        tile=model.card.tile,
        overlap=overlap,
        block=block or DEFAULT_BLOCK,
        device=device,
        precision=precision,
        batch_size=batch_size,
        layers=tuple(layers),
        driver=driver,
        creation_options=dict(creation_options),
        tta=tta,
        compiled=compiled,
    )


def _check_targets(layers: Sequence[Layer]) -> None:
    """Two layers on one file would overwrite each other."""
    seen: dict[str, str] = {}
    for layer in layers:
        path = os.path.realpath(layer.target)  # not resolve: links may loop
        if path in seen:
            raise OptionError(
                f"{layer.target}: {seen[path]} and {layer.name} would be one file; name two"
            )
        seen[path] = layer.name
