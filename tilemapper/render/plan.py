"""The plan: all that decides a render's result, made once, before the first pixel is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper import __version__
from tilemapper.raster.encode import (
    FILE_BLOCK,
    Encoding,
    encoding_of,
    is_lossless,
)
from tilemapper.raster.lattice import Block, Lattice
from tilemapper.raster.opening import is_remote
from tilemapper.raster.pyramid import level_count
from tilemapper.raster.secrets import public
from tilemapper.raster.spec import SourceSpec

# 8 file blocks: a worker makes three overview levels alone. Memory grows with a block's width:
# 8192 px took 170 MiB more on a raster of 16384 px; border tiles that both neighbours run cost
# 13 % here, 6 % there.
DEFAULT_BLOCK = 4096
# Tiles a call: more would not fit any device, and the host's memory first.
MOST_BATCH = 4096


@dataclass(frozen=True)
class Layer:
    """One output raster of a render: the map, the classes of a palette model, and so on."""

    name: str
    target: str
    bands: int
    encoding: Encoding
    average: bool = True


@dataclass(frozen=True)
class Plan:
    """All that decides a render's result, and how it is cut into blocks (which does not)."""

    source: SourceSpec
    model_folder: str
    model_name: str
    model_digest: str
    palette: tuple[tuple[str, tuple[int, int, int]], ...]
    tile: int
    overlap: int
    block: int
    device: str
    precision: str
    batch_size: int
    layers: tuple[Layer, ...]
    driver: str = "COG"
    creation_options: Mapping[str, str] = field(default_factory=dict)
    tta: bool = False
    compiled: bool = False
    version: str = __version__
    workers: int = 0  # processes over which the blocks are spread; 0 is this one alone
    devices: str = ""  # on which these are, as the user named them: cuda for all, cuda:0,1 for two

    @cached_property
    def lattice(self) -> Lattice:
        """The one lattice of the whole raster."""
        return Lattice(self.source.height, self.source.width, self.overlap, self.tile)

    @cached_property
    def blocks(self) -> list[Block]:
        """All blocks, row by row."""
        return self.lattice.blocks(self.block)

    @cached_property
    def colours(self) -> NDArray[np.uint8]:
        """Of the palette's classes, (classes, 3) uint8; (0, 3) for a model of RGB."""
        return np.array([colour for _, colour in self.palette], np.uint8).reshape(-1, 3)

    @cached_property
    def wanted(self) -> frozenset[str]:
        """Names of the layers."""
        return frozenset(layer.name for layer in self.layers)

    @property
    def levels(self) -> int:
        """Overview levels of the output, the full resolution included."""
        return level_count(self.source.height, self.source.width)

    @property
    def block_levels(self) -> int:
        """Levels whose file blocks never reach over a block's border; workers encode these."""
        if len(self.blocks) == 1:
            return self.levels
        levels, size = 1, self.block // FILE_BLOCK
        while size % 2 == 0:
            levels, size = levels + 1, size // 2
        return min(levels, self.levels)

    @property
    def tile_count(self) -> int:
        """Tiles to run if every pixel is valid, those of both neighbours counted twice."""
        return sum(self.lattice.tiles_of(block) for block in self.blocks)

    @property
    def redundant_share(self) -> float:
        """Tiles run twice because blocks share them, as a share of the lattice's."""
        return self.tile_count / self.lattice.tile_count - 1

    def needs_gdal(self, layer: Layer) -> bool:
        """Whether only GDAL can write what is asked for; layers beside the map never need it."""
        return layer.name == "map" and (
            self.driver != "COG" or encoding_of(self.creation_options) is None
        )

    def compares_pixels(self, layer: Layer) -> bool:
        """Whether a layer's pixels are read back, since comparing its bytes would not prove them.

        File blocks in DEFLATE were decoded and compared when they were encoded; what GDAL encodes
        was not, and with some options it is not to be the same.
        """
        return layer.encoding.compress != "DEFLATE" or (
            self.needs_gdal(layer) and is_lossless(self.creation_options)
        )

    def deciding(self) -> dict[str, Any]:
        """What decides the output's bytes; block size, local paths, and a CPU's batch do not.

        A GPU's batch may (`batch_decides`), but an unfinished render is not refused for it.
        """
        source = self.source.to_json()
        source.pop("notices")
        # A local file is known by its identity, wherever it lies; of a remote one that says less.
        path = source.pop("path")
        address = {"address": public(path)} if is_remote(path) else {}
        return {
            "source": source | address,
            "model": self.model_digest,
            "overlap": self.overlap,
            "device": self.device.partition(":")[0],
            "precision": self.precision,
            "layers": [[layer.name, layer.bands, asdict(layer.encoding)] for layer in self.layers],
            "driver": self.driver,
            "creation options": dict(sorted(self.creation_options.items())),
            "tta": self.tta,
            "compile": self.compiled,
            "version": self.version,
        }

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of `deciding`."""
        text = json.dumps(self.deciding(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What ``plan.json`` in the staging folder says."""
        return {
            "fingerprint": self.fingerprint,
            "block": self.block,
            "batch_size": self.batch_size,
            "model": {"name": self.model_name, "folder": self.model_folder},
            "source": public(self.source.path),
            "deciding": json.loads(json.dumps(self.deciding(), default=str)),
        }

    @property
    def batch_decides(self) -> bool:
        """Whether the batch's shape may: a GPU's libraries choose their algorithms by it."""
        return not self.device.startswith("cpu")

    def to_tag(self, batches: Sequence[int] = ()) -> dict[str, Any]:
        """What the output says of its own making: enough to render any block of it again.

        batches: tiles a call with which it was made, where memory ran out for the plan's.
        """
        source = self.source.to_json()
        source.pop("notices")
        source["path"] = public(self.source.path)
        batch: dict[str, Any] = {}
        if self.batch_decides:
            batch["batch_size"] = batches[0] if len(batches) == 1 else self.batch_size
        if self.batch_decides and len(batches) > 1:
            batch["batch_sizes"] = list(batches)
        driver = {} if self.driver == "COG" else {"driver": self.driver}
        return {
            "fingerprint": self.fingerprint,
            "source": source,
            "overlap": self.overlap,
            "tile": self.tile,
            "precision": self.precision,
            "device": self.device.partition(":")[0],
            "tta": self.tta,
            "compile": self.compiled,
            **batch,
            **driver,
        }

    def memory_bytes(self) -> int:
        """Host memory that a block needs beyond the torch baseline, estimated from its arrays."""
        channels = len(self.palette) or 3
        width = min(self.block, self.source.width) + 2 * self.tile
        band = 3 * channels * self.tile * width * 4  # running sums, one row being added, its copy
        rows = 4 * (width // (self.tile - self.overlap)) * self.tile**2 * (2 * channels + 3)
        staged = sum(2 * FILE_BLOCK * width * (layer.bands + 2) for layer in self.layers)
        return band + rows + staged

    def disk_bytes(self) -> int:
        """Scratch and output together at the worst: noise that does not compress, twice."""
        pixels = self.source.height * self.source.width
        return 2 * int(pixels * 4 / 3) * sum(layer.bands for layer in self.layers)
