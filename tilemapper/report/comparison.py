"""What a comparison of a raster with its map found, apart from its pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from tilemapper import notebook
from tilemapper.networks.card import ModelCard
from tilemapper.raster.lattice import TILE, Lattice
from tilemapper.raster.secrets import public
from tilemapper.report.alignment import Laid, Rendered, name_of
from tilemapper.report.class_shares import ClassShare, ClassTally
from tilemapper.report.seam_verdict import standing_out
from tilemapper.report.seams import BLOCK, SeamJump, seam_jump_index


@dataclass(frozen=True)
class TruthFigures:
    """Figures against a true map: name -> value, over ``windows`` of ``side`` pixels."""

    path: str
    values: dict[str, float]
    windows: int
    side: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for NaN, which is no JSON."""
        known = {name: None if math.isnan(value) else value for name, value in self.values.items()}
        return asdict(self) | {"values": known}


@dataclass(frozen=True)
class ShiftFigures:
    """Grid-shift invariance: see `tilemapper.render.grid_shift.GridShift`."""

    mean: float
    p99: float
    changed: float
    blocks: int
    shift: int


@dataclass
class Comparison:
    """A raster and its map, compared.

    Attributes:
        source, target: the paths.
        height, width, gsd_m, crs: of the map's grid; metres a pixel and a CRS's name, or None.
        transform: the map's, a to f; the identity without georeferencing.
        how: in which way the source was laid on that grid.
        lattice: of the render, or the default one when the map does not say.
        block: side of its blocks, the usual one unless ``block_known``.
        seams: the seam jump index; ``disagreement``: OD in grey levels, from the map's tags.
        shift: grid-shift invariance, None if not measured.
        classes: shares of a palette model's classes; empty for others. ``valid``: the share of the
            map's pixels that they are shares of, the others being masked.
        truth: figures against a true map, None if none was given.
        card: of the model, when it was found and is the one that rendered the map.
        tags: the map's; ``plan``: what they say of the render.
        timings: seconds and counts of the render, where they are known.
        notices: what a reader should know.
        page, quicklook: the files that were written, if any.
        small: JPEGs of source and map, for notebooks.
    """

    source: str
    target: str
    height: int
    width: int
    gsd_m: float | None
    crs: str
    transform: tuple[float, ...]
    how: str
    lattice: Lattice
    block: int
    block_known: bool
    seams: SeamJump
    disagreement: float | None
    classes: list[ClassShare]
    card: ModelCard | None
    tags: dict[str, str]
    plan: dict[str, Any] | None
    valid: float = 1.0
    shift: ShiftFigures | None = None
    truth: TruthFigures | None = None
    timings: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    page: str | None = None
    quicklook: str | None = None
    small: tuple[bytes, bytes] | None = field(default=None, repr=False)

    def _repr_html_(self) -> str:
        seams, shift = self.seams, self.shift
        facts = [("map", f"{self.target}: {self.width} x {self.height} px, {self.crs}")]
        if seams.excess is not None:
            facts.append(
                (
                    "seam jump index",
                    f"{seams.index:+.3f}, beyond the network's own {seams.excess:+.3f}",
                )
            )
        if where := standing_out(seams):
            facts.append(("seams show", f"most at {where}"))
        if self.disagreement is not None:
            facts.append(("overlap disagreement", f"{self.disagreement:.2f} grey levels"))
        if shift is not None:
            facts.append(
                ("grid shift", f"{shift.mean:.2f} grey levels, {shift.p99:.0f} at the 99th of 100")
            )
        if self.truth is not None:
            facts += [(name, f"{value:.3f}") for name, value in self.truth.values.items()]
        facts += [(found.name, f"{found.share:.1%}") for found in self.classes]
        facts += [("page", self.page)] if self.page else []
        facts += [("notice", line) for line in self.notices]
        rows = notebook.table(facts, caption="", head=False)
        if self.small is None:
            return rows
        names, words = ("satellite", "map"), "Source and map; the map is generated, not surveyed."
        return notebook.swipe(*self.small, names=names, caption=words, width=512) + rows

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``--json``; the heat map and the plan are left out."""
        return {
            "source": self.source,
            "target": self.target,
            "height": self.height,
            "width": self.width,
            "gsd_m": self.gsd_m,
            "crs": self.crs,
            "alignment": self.how,
            "seam_jump": self.seams.to_json(),
            "overlap_disagreement": self.disagreement,
            "grid_shift": None if self.shift is None else asdict(self.shift),
            "classes": {found.name: round(found.share, 6) for found in self.classes},
            "truth": None if self.truth is None else self.truth.to_json(),
            "model": self.tags.get("TILEMAPPER_MODEL"),
            "notices": self.notices,
            "page": self.page,
            "quicklook": self.quicklook,
        }


def compare_laid(
    laid: Laid, rendered: Rendered, *, card: ModelCard | None, block: int | None, seed: int
) -> Comparison:
    """Measures a map beside its source: seams and classes; the rest is for the caller to add.

    Args:
        laid: the source on the map's grid.
        rendered: the map.
        card: of the model that rendered it, if known.
        block: side of the blocks it was rendered in; None to suppose the usual one.
        seed: of the sample of a large raster.

    Raises:
        RasterError: a window cannot be read.
    """
    grid, plan = rendered.spec, rendered.plan or {}
    tile = plan.get("tile", card.tile if card else TILE)
    lattice = Lattice(grid.height, grid.width, plan.get("overlap", 64), tile)
    palette = [(entry.name, entry.colour) for entry in card.palette] if card else []
    tally = ClassTally(palette) if palette else None
    seams = seam_jump_index(
        rendered.view,
        laid.view,
        height=grid.height,
        width=grid.width,
        overlap=lattice.overlap,
        tile=lattice.tile,
        block=block or BLOCK,
        seed=seed,
        on_window=None if tally is None else tally.add,
    )
    return Comparison(
        source=public(laid.path),
        target=grid.path,
        height=grid.height,
        width=grid.width,
        gsd_m=grid.gsd_m,
        crs=name_of(grid.crs_wkt),
        transform=grid.transform,
        how=laid.how,
        lattice=lattice,
        block=block or BLOCK,
        block_known=block is not None,
        seams=seams,
        disagreement=disagreement_of(rendered.tags),
        classes=[] if tally is None else tally.shares(),
        valid=1.0 if tally is None else tally.valid,
        card=card,
        tags=rendered.tags,
        plan=rendered.plan,
        notices=list(laid.notices),
    )


def disagreement_of(tags: dict[str, str]) -> float | None:
    """OD in grey levels from ``TILEMAPPER_SEAM``; None where the tag is missing or says nothing."""
    words = tags.get("TILEMAPPER_SEAM", "").removeprefix("overlap disagreement ").split()
    try:
        return float(words[0])
    except (IndexError, ValueError):
        return None
