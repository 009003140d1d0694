"""Pairs of satellite and map images: opens any layout, packs them."""

from __future__ import annotations

from pathlib import Path

from tilemapper.errors import OptionError, PairError
from tilemapper.training.npz import Npz, pack_pairs
from tilemapper.training.sources import (
    Direction,
    Folders,
    PairSource,
    SideBySide,
    is_sided,
)
from tilemapper.training.split import Split, split_pairs

__all__ = [
    "Direction",
    "PairSource",
    "Split",
    "open_pairs",
    "pack_pairs",
    "split_pairs",
]


def open_pairs(
    path: str | Path, *, direction: Direction = "AtoB", unpaired: bool = False
) -> PairSource:
    """Opens pairs in whatever layout they have; images are decoded when they are loaded.

    Layouts: a folder of side-by-side images (half is half); folders ``A`` and ``B`` matched by
    name (GeoTIFFs of `cut_pairs` too), also inside ``train`` and ``val`` or as ``trainA`` and
    ``trainB``; a ``.npz`` file. Sub-folders ``train`` and ``val`` become part of the names.

    Args:
        path: folder or file.
        direction: "AtoB" gives A as the source and B as the target; "BtoA" the other way round.
        unpaired: do not match names of ``A`` and ``B`` (CycleGAN).

    Raises:
        PairError: nothing is there, a side is missing, or the .npz file cannot be used.
        OptionError: the direction is neither "AtoB" nor "BtoA".
    """
    if direction not in ("AtoB", "BtoA"):
        raise OptionError(f"direction: {direction!r} found, AtoB or BtoA is needed; choose one")
    path = Path(path)
    if path.suffix.lower() == ".npz" and path.is_file():
        return Npz(path, direction)
    if not path.is_dir():
        raise PairError(f"{path}: no such folder or .npz file; check the path")
    if is_sided(path):
        return Folders(path, direction, unpaired=unpaired)
    return SideBySide(path, direction)
