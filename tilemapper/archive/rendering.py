"""``[render]`` of a job file: the options of `tilemapper render`, for every scene."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

import tilemapper
from tilemapper.archive.template import checked_template
from tilemapper.errors import JobError
from tilemapper.raster.creation_options import check_creation_options
from tilemapper.raster.drivers import check_drivers
from tilemapper.render.plan import MOST_BATCH

# Arrays of TOML are lists; what is in them keeps its type.
Array = Field(strict=False)
Bounds = Annotated[tuple[float, float, float, float], Array]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LAYERS = ("classes", "uncertainty")


class Closed(BaseModel):
    """A table of a job file: no unknown keys, values of their type, and nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Render(Closed):
    """``[render]``: the options of ``tilemapper render``, by the names of its flags.

    ``classes`` and ``uncertainty`` are templates of paths, as ``output.template`` is. ``overlap``
    is by default less where the model's tile has no room for 64.
    """

    model: str = "maps"
    overlap: Literal[0, 32, 64, 96, 128] = 64
    batch_size: Annotated[int, Field(ge=1, le=MOST_BATCH)] | Literal["auto"] = "auto"
    block: Annotated[int, Field(ge=512, multiple_of=512)] | Literal["auto"] = "auto"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gsd: Positive | Literal["auto", "native"] = "auto"
    bidx: Annotated[tuple[int, ...], Field(min_length=3, max_length=3), Array] | None = None
    nodata: float | None = None
    scale: Annotated[tuple[float, float], Array] | None = None
    bounds: Bounds | None = None
    mask: str | None = None
    tone: Literal["none", "match"] = "none"
    tta: bool = False
    compile: bool = False
    driver: Literal["COG", "GTiff"] = "COG"
    co: dict[str, str] = {}
    allow_driver: Annotated[tuple[str, ...], Array] = ()
    classes: str | None = None
    uncertainty: str | None = None

    @field_validator("overlap", mode="before")
    @classmethod
    def _a_number(cls, value: Any) -> Any:
        if isinstance(value, bool):  # equals 0 or 1, which is enough for Literal
            raise ValueError("0, 32, 64, 96 or 128 is needed")
        return value

    @field_validator(*LAYERS)
    @classmethod
    def _known_fields(cls, value: str | None) -> str | None:
        return None if value is None else checked_template(value)

    @field_validator("allow_driver")
    @classmethod
    def _known_drivers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_drivers(value)
        return value

    @model_validator(mode="after")
    def _known_creation_options(self) -> Render:
        check_creation_options(self.driver, self.co)
        return self

    def layers(self) -> dict[str, str]:
        """Templates of what is written besides the map, by the layer's name."""
        named = {name: getattr(self, name) for name in LAYERS}
        return {name: template for name, template in named.items() if template is not None}

    def check_model(self, name: str, *, has_classes: bool) -> None:
        """Refuses, before any work, a layer that the model cannot give.

        Raises:
            JobError: classes are wanted of a model that paints RGB.
        """
        if self.classes is not None and not has_classes:
            raise JobError(
                f"render.classes: model {name} paints RGB and has no classes; use a palette model, "
                "or take it out"
            )

    def options(self) -> dict[str, Any]:
        """As `tilemapper.render` takes them, without the model and the paths of layers."""
        return {
            # Left to the model's tile where it is not given.
            "overlap": self.overlap if "overlap" in self.model_fields_set else None,
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
        paths = {"model", "mask", *LAYERS}
        values = self.model_dump(mode="json", exclude={"batch_size", "block", *paths})
        values["layers"] = list(self.layers())
        values["model_sha256"] = model_digest
        values["version"] = tilemapper.__version__
        if self.mask is not None:
            values["mask_sha256"] = hashlib.sha256(read_bytes(Path(self.mask))).hexdigest()
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_bytes(path: Path) -> bytes:
    """A small file that a job names, whole.

    Raises:
        JobError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: cannot be read ({error.strerror}); check the path") from error
