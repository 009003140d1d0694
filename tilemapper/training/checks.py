"""Finds every pair that would spoil training, in one run: damaged, doubled, flat, misplaced."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from tilemapper.errors import PairError
from tilemapper.training.alignment import Alignment, edge_alignment
from tilemapper.training.images import RgbImage, check_size
from tilemapper.training.pairs import open_pairs
from tilemapper.training.sources import Folders, PairSource, is_sided, unmatched

KINDS = (
    "damaged", "mis-sized", "unpaired", "duplicate", "near-duplicate", "constant", "mirrored",
    "misaligned",
)  # fmt: skip

# Standard deviations of the edge correlation, and how often the score as the pair lies. Tuned on
# the maps set: with them one of 1096 sound pairs is named (open water), and of planted faults
# (mirrored, turned, shifted by 3 % and more) about nine of ten.
LEAST_SCORE = 5.0
TURN_RATIO, SHIFT_RATIO = 1.5, 1.7
# Thumbnails (16 x 16, each of mean 0 and length 1) that agree better than this are one scene.
THUMBNAIL_SIDE = 16
NEAR_DUPLICATE = 0.985
# Grey levels; a thumbnail flatter than this says nothing about its scene (open water).
FLAT_THUMBNAIL = 4.0
CONSTANT_DEVIATION = 0.5
_CHUNK = 1024


@dataclass(frozen=True)
class Fault:
    """What is wrong with a pair. ``names``: the pair first, then others that are concerned."""

    kind: str
    names: tuple[str, ...]
    what: str


@dataclass(frozen=True)
class _Look:
    """What is kept of a decoded pair: enough to compare it with all others."""

    size: tuple[int, int]
    digest: bytes
    thumbnail: NDArray[np.float32] | None
    faults: tuple[Fault, ...]


def check_pairs(
    path: str | Path, *, on_pair: Callable[[], object] = lambda: None
) -> tuple[int, list[Fault]]:
    """Decodes every pair fully; returns how many there are and all faults, in order of kind.

    Args:
        path: pairs in any layout of `open_pairs`.
        on_pair: called after each pair.

    Raises:
        PairError: there are no pairs at all, or the .npz file cannot be read.
    """
    root = Path(path)
    faults = []
    if root.is_dir() and is_sided(root):
        source: PairSource = Folders(root, "AtoB", partial=True)
        faults = [
            Fault("unpaired", (name,), f"has no image in {side}") for name, side in unmatched(root)
        ]
    else:
        source = open_pairs(root)

    def look(index: int) -> _Look | Fault:
        found = _look_at(source, index)
        on_pair()
        return found

    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        looks = list(pool.map(look, range(len(source))))
    sound = {n: v for n, v in zip(source.names, looks, strict=True) if isinstance(v, _Look)}
    faults += [v for v in looks if isinstance(v, Fault)]
    faults += [fault for v in sound.values() for fault in v.faults]
    faults += _other_sizes(sound) + _duplicates(sound)
    faults.sort(key=lambda fault: KINDS.index(fault.kind))
    return len(source), faults


def _look_at(source: PairSource, index: int) -> _Look | Fault:
    name = source.names[index]
    try:
        first, second = source.read(index)
    except PairError as error:
        kind = "mis-sized" if "even width" in str(error) else "damaged"
        return Fault(kind, (name,), str(error))
    if first.shape != second.shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (first, second)]
        return Fault("mis-sized", (name,), f"A is {sizes[0]} px and B is {sizes[1]}")
    try:
        check_size(name, first)
    except PairError as error:
        return Fault("mis-sized", (name,), str(error))
    faults = _constant(name, first, second) or _misplaced(name, edge_alignment(first, second))
    digest = hashlib.sha256(first.tobytes()).digest()
    height, width = first.shape[:2]
    return _Look((height, width), digest, _thumbnail(first), tuple(faults))


def _constant(name: str, first: RgbImage, second: RgbImage) -> list[Fault]:
    return [
        Fault("constant", (name,), f"{side} is one colour, {tuple(image[0, 0].tolist())}")
        for side, image in (("A", first), ("B", second))
        if float(image.astype(np.float32).std((0, 1)).max()) <= CONSTANT_DEVIATION
    ]


def _misplaced(name: str, found: Alignment) -> list[Fault]:
    # A score below 1 as the pair lies is chance; dividing by it would accuse anything.
    here = max(found.here, 1.0)
    if found.turned >= max(LEAST_SCORE, TURN_RATIO * here, found.shifted):
        what = f"one side is {found.turn} (edges agree {found.turned / here:.1f} times as well)"
        return [Fault("mirrored", (name,), what)]
    if found.shifted >= max(LEAST_SCORE, SHIFT_RATIO * here):
        down, right = found.shift
        what = (
            f"B lies {abs(down)} px {'below' if down >= 0 else 'above'} and {abs(right)} px "
            f"{'right' if right >= 0 else 'left'} of A "
            f"(edges agree {found.shifted / here:.1f} times as well there)"
        )
        return [Fault("misaligned", (name,), what)]
    return []


def _thumbnail(image: RgbImage) -> NDArray[np.float32] | None:
    """A perceptual hash of real numbers, (256,) of length 1; None when there is nothing to see."""
    grey = torch.from_numpy(image.astype(np.float32).mean(2))
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    small = F.interpolate(grey[None, None], size, mode="bilinear", antialias=True).flatten().numpy()
    small = small - small.mean()
    if small.std() < FLAT_THUMBNAIL:
        return None
    unit: NDArray[np.float32] = small / np.linalg.norm(small)
    return unit


def _other_sizes(sound: dict[str, _Look]) -> list[Fault]:
    """Pairs whose size is not the most frequent one."""
    counts = Counter(look.size for look in sound.values())
    if len(counts) < 2:
        return []
    usual, times = counts.most_common(1)[0]
    if times <= len(sound) / 2:
        return []  # a set of many sizes, on purpose
    return [
        Fault("mis-sized", (n,), f"{v.size[1]}x{v.size[0]} px, most are {usual[1]}x{usual[0]}")
        for n, v in sound.items()
        if v.size != usual
    ]


def _duplicates(sound: dict[str, _Look]) -> list[Fault]:
    """Equal and nearly equal images A; each pair is named once, with the earlier one it repeats."""
    first_with: dict[bytes, str] = {}
    faults = []
    for name, look in sound.items():
        earlier = first_with.setdefault(look.digest, name)
        if earlier != name:
            faults.append(Fault("duplicate", (name, earlier), f"has the same pixels as {earlier}"))
    doubled = {fault.names[0] for fault in faults}
    seen = {n: v.thumbnail for n, v in sound.items() if v.thumbnail is not None}
    names = [n for n in seen if n not in doubled]
    if len(names) < 2:
        return faults
    hashes = np.stack([thumbnail for n in names if (thumbnail := seen[n]) is not None])
    for start in range(0, len(names), _CHUNK):  # (chunk, n) at a time: n may be large
        alike = hashes[start : start + _CHUNK] @ hashes.T
        alike[np.arange(len(names)) >= np.arange(start, start + len(alike))[:, None]] = 0
        for row in np.flatnonzero(alike.max(1) >= NEAR_DUPLICATE):
            name, earlier = names[start + row], names[int(alike[row].argmax())]
            what = f"shows the scene of {earlier} (likeness {alike[row].max():.3f})"
            faults.append(Fault("near-duplicate", (name, earlier), what))
    return faults
