"""The layouts in which pairs are stored, each a `PairSource` that loads one pair by its index."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from tilemapper.errors import PairError
from tilemapper.paths import real_path
from tilemapper.training.images import IMAGE_SUFFIXES, RgbImage, check_size, read_image

Direction = Literal["AtoB", "BtoA"]
TRAIN_PARTS = frozenset({"train", "training"})
HELD_OUT_PARTS = frozenset({"val", "valid", "validation", "test"})


class PairSource(ABC):
    """Pairs by index. ``names`` are unique; a sub-folder (train, val) is part of the name.

    ``turned``: the files read so far that say they are to be shown turned, see `read_image`.
    """

    def __init__(self, names: list[str], direction: Direction) -> None:
        self.names = names
        self.direction = direction
        self.turned: set[Path] = set()

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int) -> tuple[RgbImage, RgbImage]:
        """Images A and B as stored, whatever their sizes. Raises PairError naming the file."""

    def _image(self, path: Path) -> RgbImage:
        return read_image(path, on_turned=lambda: self.turned.add(path))

    @abstractmethod
    def place(self, index: int) -> tuple[Path, int]:
        """Where a pair lies: its file, or that of its image A, and its number in a file of many."""

    def load(self, index: int) -> tuple[RgbImage, RgbImage]:
        """Source and target in the direction of this source, each (h, w, 3) uint8 of one size.

        Raises:
            PairError: an image is damaged, too small, or the two differ in size.
        """
        first, second = self.read(index)
        name = self.names[index]
        if first.shape != second.shape:
            raise PairError(
                f"{name}: A is {_size(first)} px and B is {_size(second)}, one size is needed; "
                "cut them again or run tilemapper pairs check"
            )
        check_size(name, first)
        return (first, second) if self.direction == "AtoB" else (second, first)

    def part(self, index: int) -> str:
        """The sub-folder that says what the pair is for, such as "train"; "" when there is none."""
        return part_of(self.names[index])


class SideBySide(PairSource):
    """Files that hold A in their left half and B in their right half."""

    def __init__(self, root: Path, direction: Direction) -> None:
        files = find_images(root)
        if not files:
            raise PairError(
                f"{root}: no image found, side-by-side images, folders A and B, or a .npz file "
                "are needed; check the path"
            )
        places = (path.relative_to(root).parents for path in files.values())
        for below in dict.fromkeys(itertools.chain.from_iterable(places)):
            if all(_side_folders(root / below, side) for side in "AB"):
                raise PairError(
                    f"{root}: {below} has folders A and B, and is no folder of side-by-side "
                    "images; name that folder"
                )
        super().__init__(list(files), direction)
        self.files = files

    def read(self, index: int) -> tuple[RgbImage, RgbImage]:
        """The halves of the file; raises PairError when its width is odd or it is damaged."""
        path = self.files[self.names[index]]
        image = self._image(path)
        width = image.shape[1]
        if width % 2:
            raise PairError(
                f"{path}: {_size(image)} px found, an even width is needed (two halves); remove it"
            )
        return image[:, : width // 2], image[:, width // 2 :]

    def place(self, index: int) -> tuple[Path, int]:
        """The file."""
        return real_path(self.files[self.names[index]]), 0


class Folders(PairSource):
    """Folders A and B with images matched by name, GeoTIFFs among them.

    With ``unpaired`` the names need not match: the shorter folder is gone through again. With
    ``partial`` names of one side only are left out (see `unmatched`).
    """

    def __init__(
        self, root: Path, direction: Direction, *, unpaired: bool = False, partial: bool = False
    ) -> None:
        sides = _sides(root, "A"), _sides(root, "B")
        for side, files in zip("AB", sides, strict=True):
            if not files and not partial:
                raise PairError(
                    f"{root}: no image found in {side}, both sides are needed; add them"
                )
        matched = _by_turns(*sides) if unpaired else _by_name(root, *sides, partial=partial)
        super().__init__(list(matched), direction)
        self._files = list(matched.values())

    def read(self, index: int) -> tuple[RgbImage, RgbImage]:
        """Images A and B; raises PairError when one of the files is damaged."""
        first, second = self._files[index]
        return self._image(first), self._image(second)

    def place(self, index: int) -> tuple[Path, int]:
        """The file of image A."""
        return real_path(self._files[index][0]), 0


def find_images(root: Path) -> dict[str, Path]:
    """All images below a folder in natural order: relative path without suffix -> path.

    Raises:
        PairError: two files differ only in their suffix, so that a name would mean both.
    """
    found: dict[str, Path] = {}
    for path in root.rglob("*"):
        below = path.relative_to(root)
        # Hidden folders too: a set of pairs that is being cut lies in one.
        if path.suffix.lower() not in IMAGE_SUFFIXES or any(p[0] == "." for p in below.parts):
            continue
        name = below.with_suffix("").as_posix()
        if name in found:
            raise PairError(f"{path}: {found[name].name} has the same name; remove one of them")
        found[name] = path
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def part_of(name: str) -> str:
    """The leading train or val folder of a pair's name; "" when there is none."""
    first, slash, _ = name.partition("/")
    return first if slash and first in TRAIN_PARTS | HELD_OUT_PARTS else ""


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts 2 before 10."""
    return [(0, int(t)) if t.isdecimal() else (1, t) for t in re.split(r"(\d+)", name) if t]


def is_sided(root: Path) -> bool:
    """Whether a folder holds sides: A and B, trainA and trainB, or these inside train and val."""
    return any(_side_folders(root, side) for side in "AB")


def _side_folders(root: Path, side: str) -> dict[str, Path]:
    """The folders of one side: prefix of the names -> folder."""
    parts = sorted(TRAIN_PARTS | HELD_OUT_PARTS)
    candidates = {"": root / side}
    candidates |= {f"{part}/": root / part / side for part in parts}
    candidates |= {
        f"{part}/": root / f"{part}{side}" for part in parts if (root / f"{part}{side}").is_dir()
    }
    return {prefix: folder for prefix, folder in candidates.items() if folder.is_dir()}


def _sides(root: Path, side: str) -> dict[str, Path]:
    found = {
        prefix + name: path
        for prefix, folder in _side_folders(root, side).items()
        for name, path in find_images(folder).items()
    }
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def unmatched(root: Path) -> list[tuple[str, str]]:
    """Names that a sided folder holds on one side only, and the side ("A", "B") they lack."""
    first, second = _sides(root, "A"), _sides(root, "B")
    alone = sorted(first.keys() ^ second.keys(), key=natural_key)
    return [(name, "B" if name in first else "A") for name in alone]


def _by_name(
    root: Path, first: dict[str, Path], second: dict[str, Path], *, partial: bool
) -> dict[str, tuple[Path, Path]]:
    alone = sorted(first.keys() ^ second.keys(), key=natural_key)
    if alone and not partial:
        side = "B" if alone[0] in first else "A"
        raise PairError(
            f"{root}: {alone[0]} has no image in {side} ({len(alone)} unpaired in all), both "
            "sides are needed; run tilemapper pairs check"
        )
    return {name: (first[name], second[name]) for name in first if name in second}


def _by_turns(first: dict[str, Path], second: dict[str, Path]) -> dict[str, tuple[Path, Path]]:
    """Within each part (train, val) the shorter side is gone through again and again."""
    matched: dict[str, tuple[Path, Path]] = {}
    for part in dict.fromkeys(part_of(name) for name in (*first, *second)):
        sides = [{n: p for n, p in s.items() if part_of(n) == part} for s in (first, second)]
        if not all(sides):
            continue  # such as a val folder of one side only
        files = [list(side.values()) for side in sides]
        longer = sides[0] if len(sides[0]) >= len(sides[1]) else sides[1]
        for i, name in enumerate(longer):
            matched[name] = files[0][i % len(files[0])], files[1][i % len(files[1])]
    return matched


def _size(image: RgbImage) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
