"""Mosaics: scenes that touch become one virtual raster on one grid, rendered on one lattice.

So neighbouring outputs meet without a seam, and pixels that two of them share are the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.scene import Scene
from tilemapper.errors import RasterError, ServerError, TilemapperError, TryAgainError
from tilemapper.raster.opening import open_raster
from tilemapper.raster.secrets import public, redacted

# How far, in pixels, a scene's grid may lie off the mosaic's before it counts as another grid.
MAX_SHIFT = 0.1
_VRT_TYPES = {
    "uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "float32": "Float32", "float64": "Float64",
}  # fmt: skip
_WORDS = {
    ColorInterp.red: "Red", ColorInterp.green: "Green", ColorInterp.blue: "Blue",
    ColorInterp.gray: "Gray",
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A scene with its header. kind: all that scenes of one mosaic must have in common."""

    scene: Scene
    height: int
    width: int
    transform: Affine
    kind: tuple[object, ...]
    crs: CRS
    bands: tuple[tuple[int, str, str], ...]  # number, type, colour; alpha is left out

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in the CRS; rasters here are north-up."""
        left, top = self.transform.c, self.transform.f
        return (
            left, top + self.height * self.transform.e, left + self.width * self.transform.a, top,
        )  # fmt: skip


@dataclass(frozen=True)
class Mosaic:
    """Members on one grid; ``name`` is the first member's stem."""

    name: str
    members: tuple[Member, ...]

    # Cached, since each is asked for again with every member, of which there may be thousands.
    @cached_property
    def transform(self) -> Affine:
        """The grid's transform: that of the first member, moved to the mosaic's corner."""
        first = self.members[0].transform
        cols = min((m.transform.c - first.c) / first.a for m in self.members)
        rows = min((m.transform.f - first.f) / first.e for m in self.members)
        x, y = first.c + round(cols) * first.a, first.f + round(rows) * first.e
        return Affine(first.a, 0.0, x, 0.0, first.e, y)

    def place(self, member: Member) -> tuple[int, int]:
        """First row and column of a member in the grid."""
        own = self.transform
        row = round((member.transform.f - own.f) / own.e)
        return row, round((member.transform.c - own.c) / own.a)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the grid."""
        places = [(self.place(m), m) for m in self.members]
        return (
            max(row + m.height for (row, _), m in places),
            max(col + m.width for (_, col), m in places),
        )

    @cached_property
    def version(self) -> str:
        """Changes when a member changes, comes or goes."""
        known = [
            (m.scene.id, m.scene.size_bytes, m.scene.mtime_ns, m.scene.etag) for m in self.members
        ]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def mosaics_of(job: ArchiveJob, scenes: Iterable[Scene]) -> tuple[list[Mosaic], list[Scene]]:
    """Scenes in groups that touch, by name, and those that belong to none, with their faults.

    Raises:
        ServerError, TryAgainError: one cannot be opened for now; rendered without it, its mosaic
            would be done again later.
    """
    members, alone = [], []
    for scene in scenes:
        member = None
        if scene.fault is None:
            try:
                member = _member(job, scene)
            except (ServerError, TryAgainError):
                raise
            except TilemapperError as error:
                scene = replace(scene, fault=redacted(" ".join(str(error).split())))
        if member is None:
            alone.append(scene)
        else:
            members.append(member)
    found = []
    for group in _touching(members):
        name = group[0].scene.stem
        found.append(Mosaic(name, tuple(group)))
    return sorted(found, key=lambda mosaic: mosaic.members[0].scene.name), alone


def _member(job: ArchiveJob, scene: Scene) -> Member | None:
    """A scene's header; None if it cannot be part of a mosaic, and is rendered alone.

    Raises:
        RasterError: it cannot be opened.
    """
    if public(scene.path) != scene.path:
        raise RasterError(
            f"{scene.name}: its address holds a signature or password, which a mosaic would keep "
            "on the disk; give credentials by the environment"
        )
    with open_raster(scene.path, allow_drivers=job.render.allow_driver) as src:
        north_up = src.transform.b == src.transform.d == 0 and src.transform.e < 0
        plain = src.crs is not None and north_up and src.transform.a > 0 and not src.gcps[0]
        colours = [c for c in src.colorinterp if c is not ColorInterp.alpha]
        if not plain or ColorInterp.palette in colours or set(src.dtypes) - set(_VRT_TYPES):
            return None
        bands = tuple(
            (index, _VRT_TYPES[src.dtypes[index - 1]], _WORDS.get(colour, "Undefined"))
            for index, colour in zip(src.indexes, src.colorinterp, strict=True)
            if colour is not ColorInterp.alpha
        )
        kind = (
            src.crs.to_wkt(),
            bands,
            float(f"{src.transform.a:.9g}"),
            float(f"{src.transform.e:.9g}"),
        )
        return Member(scene, src.height, src.width, src.transform, kind, src.crs, bands)


def _touching(members: list[Member]) -> Iterator[list[Member]]:
    """Connected groups of members of one kind on one grid.

    Filed by their corners in squares of a power of two pixels, each of the smallest that is wider
    than it. From the widest on each is compared with those alone that are filed in its own or a
    neighbouring square of their width: all others are too far away.
    """
    parent = list(range(len(members)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    wide = [1 << (max(m.height, m.width) + 1).bit_length() for m in members]
    widths = sorted(set(wide), reverse=True)
    kinds: dict[tuple[object, ...], int] = {}
    filed: dict[tuple[int, int, int, int], list[int]] = {}
    for index in sorted(range(len(members)), key=lambda i: -wide[i]):
        member, t = members[index], members[index].transform
        kind = kinds.setdefault(member.kind, len(kinds))
        for width in widths:
            if width < wide[index]:
                break
            col, row = (math.floor(at / step / width) for at, step in ((t.c, t.a), (t.f, t.e)))
            for cols, rows in itertools.product((-1, 0, 1), repeat=2):
                for other in filed.get((kind, width, col + cols, row + rows), ()):
                    if _meet(members[other], member):
                        parent[root(index)] = root(other)
        filed.setdefault((kind, wide[index], col, row), []).append(index)
    groups: dict[int, list[Member]] = {}
    for index, member in enumerate(members):
        groups.setdefault(root(index), []).append(member)
    yield from groups.values()


def _meet(one: Member, other: Member) -> bool:
    """Whether two members touch or overlap, and lie on one grid."""
    if one.kind != other.kind:
        return False
    cols = (other.transform.c - one.transform.c) / one.transform.a
    rows = (other.transform.f - one.transform.f) / one.transform.e
    if max(abs(cols - round(cols)), abs(rows - round(rows))) > MAX_SHIFT:
        return False
    col, row = round(cols), round(rows)
    return -other.width <= col <= one.width and -other.height <= row <= one.height
