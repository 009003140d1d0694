"""Job files of archives: TOML, checked key by key before anything is listed or opened."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import string
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

import tilemapper
from tilemapper.errors import JobError

Bounds = tuple[float, float, float, float]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FIELDS = ("stem", "name", "relpath", "date", "model", "mosaic", "row", "col")
RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k", ".jpg", ".jpeg", ".png")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Closed):
    """``[source]``: which scenes.

    ``scenes``: folders, globs, rasters, text lists, STAC items, collections or catalogs,
    ``s3://`` and ``https://`` prefixes, lists or rasters, ``-`` for a list on stdin. ``pattern``
    and ``exclude`` are globs on a scene's name. ``bounds``: west, south, east, north in degrees;
    scenes that do not touch them are skipped, as are those outside of ``after`` (inclusive) and
    ``before`` (exclusive), or smaller than ``min_px`` a side. ``asset``: the STAC asset to take.
    """

    scenes: Annotated[tuple[str, ...], Field(min_length=1)]
    pattern: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bounds: Bounds | None = None
    after: date | None = None
    before: date | None = None
    min_px: Annotated[int, Field(ge=1)] | None = None
    asset: str | None = None

    @field_validator("scenes", "pattern", "exclude", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class Output(_Closed):
    """``[output]``: where maps go. See `FIELDS` for what a template may name.

    ``work``: folder of the ledger, staging and reports; by default beside the outputs, and needed
    when those are on a server. ``overwrite`` allows to replace files that no run of this job made.
    """

    template: str
    work: str | None = None
    overwrite: bool = False
    stac: bool = True
    report: bool = True

    @field_validator("template")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        try:
            named = [name for _, name, *_ in string.Formatter().parse(value) if name is not None]
        except ValueError as error:
            raise ValueError(f"{error}; write {{stem}} and so on") from None
        for name in named:
            if name not in FIELDS:
                raise ValueError(
                    f"{{{name}}} is none of {', '.join(FIELDS)}{nearest(name, FIELDS)}"
                )
        if not named:
            raise ValueError("all scenes would get this name; use {stem} or {relpath}")
        if not value.endswith((".tif", ".tiff")):
            raise ValueError("outputs are GeoTIFFs; let it end in .tif")
        return value

    @property
    def is_remote(self) -> bool:
        """Whether outputs go to an object store."""
        return self.template.startswith("s3://")


class Render(_Closed):
    """``[render]``: the options of ``tilemapper render``, by the names of its flags."""

    model: str = "maps"
    overlap: Literal[0, 32, 64, 96, 128] = 64
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    block: Annotated[int, Field(ge=512, multiple_of=512)] | Literal["auto"] = "auto"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gsd: Positive | Literal["auto", "native"] = "auto"
    bidx: Annotated[tuple[int, ...], Field(min_length=3, max_length=3)] | None = None
    nodata: float | None = None
    scale: tuple[float, float] | None = None
    bounds: Bounds | None = None
    mask: str | None = None
    tone: Literal["none", "match"] = "none"
    tta: bool = False
    compile: bool = False
    driver: Literal["COG", "GTiff"] = "COG"
    co: dict[str, str] = {}
    allow_driver: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """As `tilemapper.render` takes them, without the model."""
        return {
            "overlap": self.overlap,
            "batch_size": None if self.batch_size == "auto" else self.batch_size,
            "block": None if self.block == "auto" else self.block,
            "device": self.device,
            "precision": self.precision,
            "gsd": self.gsd,
            "bidx": self.bidx,
            "nodata": self.nodata,
            "scale": self.scale,
            "bounds": self.bounds,
            "mask": self.mask,
            "tone": self.tone,
            "tta": self.tta,
            "compiled": self.compile,
            "driver": self.driver,
            "creation_options": {key.upper(): value for key, value in self.co.items()},
            "allow_drivers": self.allow_driver,
        }

    def recipe(self, model_digest: str) -> str:
        """sha256 of what decides every output of the job, whatever the scene.

        ``auto`` stays ``auto``: an archive is not rendered anew because a machine has a GPU.
        """
        values = self.model_dump(mode="json", exclude={"model", "batch_size", "block", "mask"})
        values["model_sha256"] = model_digest
        values["version"] = tilemapper.__version__
        if self.mask is not None:
            values["mask_sha256"] = hashlib.sha256(read_bytes(Path(self.mask))).hexdigest()
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Run(_Closed):
    """``[run]``: how much is tried. A scene that fails is tried ``retries`` times more."""

    retries: Annotated[int, Field(ge=0, le=20)] = 1
    time_budget_minutes: Positive | None = None
    min_free_gb: Annotated[float, Field(ge=0)] = 0.0
    lease_s: Annotated[float, Field(ge=1)] = 60.0
    scheduler: str | None = None
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


class Mosaic(_Closed):
    """``[mosaic]``: scenes that touch are rendered as one raster.

    ``output``: "one" raster a mosaic, one a "scene", or one a "cell" of ``cell_px`` pixels.
    """

    output: Literal["one", "scene", "cell"] = "one"
    cell_px: Annotated[int, Field(ge=256)] = 8192


class ArchiveJob(_Closed):
    """A whole job file of kind "archive"."""

    kind: Literal["archive"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    source: Source
    output: Output
    render: Render = Render()
    run: Run = Run()
    mosaic: Mosaic | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ArchiveJob:
        fields = set(re.findall(r"\{(\w+)\}", self.output.template))
        per_cell = self.mosaic is not None and self.mosaic.output == "cell"
        if fields & {"row", "col"} and not per_cell:
            raise ValueError('{row} and {col} need [mosaic] output = "cell"')
        if per_cell and not {"row", "col"} <= fields:
            raise ValueError("output.template needs {row} and {col} for one output a cell")
        if "mosaic" in fields and self.mosaic is None:
            raise ValueError("{mosaic} needs a [mosaic] table")
        if self.output.is_remote and self.output.work is None:
            raise ValueError("output.work is needed, a local folder, when outputs are on a server")
        if self.output.is_remote and self.mosaic is not None:
            raise ValueError("mosaics are written to disks only; give a local output.template")
        return self

    @property
    def work(self) -> Path:
        """Folder of the ledger and of staging; two jobs never share one."""
        folder = Path(self.output.work) if self.output.work else self.root / ".tilemapper"
        return folder / self.name

    @property
    def root(self) -> Path:
        """The folder above all outputs: what the template names before its first field."""
        if self.output.is_remote:
            return Path(str(self.output.work))
        return Path(self.output.template.partition("{")[0] + "x").parent


def read_bytes(path: Path) -> bytes:
    """A small file that a job names, whole.

    Raises:
        JobError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """The ending of a message, with the nearest known word if one is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; correct it"
