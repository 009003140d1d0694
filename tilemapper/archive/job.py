"""Job files of archives: TOML, checked key by key before anything is listed or opened."""

from __future__ import annotations

import itertools
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from tilemapper.archive.rendering import Array, Bounds, Closed, Positive, Render
from tilemapper.archive.template import checked_template, fields_of, fixed_of
from tilemapper.networks.arguments import NAME

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k", ".jpg", ".jpeg", ".png")


class Source(Closed):
    """``[source]``: which scenes.

    ``scenes``: folders, globs, rasters, text lists, STAC items, collections or catalogs,
    ``s3://`` and ``https://`` prefixes, lists or rasters, ``-`` for a list on stdin. ``pattern``
    and ``exclude`` are globs on a scene's name. ``bounds``: west, south, east, north in degrees,
    the west beyond the east where they pass the date line; scenes that do not touch them are
    skipped, as are those outside of ``after`` (inclusive) and ``before`` (exclusive), or smaller
    than ``min_px`` a side. ``asset``: the STAC asset to take.
    """

    scenes: Annotated[tuple[str, ...], Field(min_length=1), Array]
    pattern: Annotated[tuple[str, ...], Array] = ()
    exclude: Annotated[tuple[str, ...], Array] = ()
    bounds: Bounds | None = None
    after: Annotated[date, Field(strict=False)] | None = None
    before: Annotated[date, Field(strict=False)] | None = None
    min_px: Annotated[int, Field(ge=1)] | None = None
    asset: str | None = None

    @field_validator("scenes", "pattern", "exclude", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("after", "before", mode="before")
    @classmethod
    def _a_date(cls, value: Any) -> Any:
        if isinstance(value, int | float):  # would count as seconds since 1970
            raise ValueError("a date such as 2026-01-31 is needed")
        return value


class Output(Closed):
    """``[output]``: where maps go. See `template.FIELDS` for what a template may name.

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
        return checked_template(value)


class Run(Closed):
    """``[run]``: how much is tried. A scene that fails is tried ``retries`` times more.

    ``stall_minutes``: without a tile for so long, a scene counts as hung, not as slow.
    """

    retries: Annotated[int, Field(ge=0, le=20)] = 1
    time_budget_minutes: Positive | None = None
    stall_minutes: Positive = 60.0
    min_free_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    lease_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 60.0
    scheduler: str | None = None
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


class Mosaic(Closed):
    """``[mosaic]``: scenes that touch are rendered as one raster.

    ``output``: "one" raster a mosaic, one a "scene", or one a "cell" of ``cell_px`` pixels.
    """

    output: Literal["one", "scene", "cell"] = "one"
    cell_px: Annotated[int, Field(ge=256)] = 8192


class ArchiveJob(Closed):
    """A whole job file of kind "archive"."""

    kind: Literal["archive"]
    name: Annotated[str, Field(pattern=NAME)]
    source: Source
    output: Output
    render: Render = Render()
    run: Run = Run()
    mosaic: Mosaic | None = None
    _file: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ArchiveJob:
        per_cell = self.mosaic is not None and self.mosaic.output == "cell"
        for template in self.templates:
            fields = set(fields_of(template))
            if fields & {"row", "col"} and not per_cell:
                raise ValueError('{row} and {col} need [mosaic] output = "cell"')
            if per_cell and not {"row", "col"} <= fields:
                raise ValueError(f"{template} needs {{row}} and {{col}} for one output a cell")
            if "mosaic" in fields and self.mosaic is None:
                raise ValueError("{mosaic} needs a [mosaic] table")
        if any(one == other for one, other in itertools.combinations(self.templates, 2)):
            raise ValueError("map, render.classes and render.uncertainty need paths of their own")
        if self.is_remote and self.output.work is None:
            raise ValueError("output.work is needed, a local folder, when outputs are on a server")
        if self.is_remote and self.mosaic is not None:
            raise ValueError("mosaics are written to disks only; give a local output.template")
        return self

    @property
    def file(self) -> Path | None:
        """Where the job was read; None if it was made in memory."""
        return self._file

    def read_from(self, path: Path) -> ArchiveJob:
        """The job, with the file that it was read from."""
        job = self.model_copy()
        job._file = path.absolute()
        return job

    @property
    def templates(self) -> tuple[str, ...]:
        """Of all files that a scene becomes: first the map, then `Render.layers`."""
        return self.output.template, *self.render.layers().values()

    @property
    def is_remote(self) -> bool:
        """Whether any output goes to an object store."""
        return any(template.startswith("s3://") for template in self.templates)

    @property
    def work(self) -> Path:
        """Folder of the ledger and of staging; two jobs never share one."""
        folder = Path(self.output.work) if self.output.work else self.root / ".tilemapper"
        return folder / self.name

    @property
    def root(self) -> Path:
        """The folder above all outputs: what the template names before its first field."""
        if self.output.template.startswith("s3://"):
            return Path(str(self.output.work))
        return Path(fixed_of(self.output.template) + "x").parent
