"""Splits pairs into training and held-out ones so that no ground is in both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tilemapper.errors import OptionError, PairError, TrainingError
from tilemapper.training.sources import HELD_OUT_PARTS, PairSource, part_of

OVERLAPS_NAME = "overlaps.json"
LOOKED_AT = 8  # pairs whose pixels tell one set from another of the same names


@dataclass
class Split:
    """Indices into a pair source, both ascending and disjoint.

    ``by_folder``: the held-out ones are those of a val folder, and were not chosen by us.
    """

    train: list[int]
    held_out: list[int]
    by_folder: bool = False


@dataclass(frozen=True)
class SplitDigest:
    """sha256 of the names of all pairs, of the held-out ones, and of those learned from."""

    pairs: str
    held_out: str
    trained: str

    def check(self, known: Mapping[str, str] | None) -> None:
        """Refuses what a checkpoint says of its split, None in older ones, if it is another one.

        Pairs that were learned from must not be held out later: figures would be too good.

        Raises:
            TrainingError: it is another one.
        """
        if known is None or known.items() <= asdict(self).items():  # an older one says less
            return
        if known.get("pairs") != self.pairs:
            raise TrainingError(
                "checkpoint: of other pairs than these; resume with the data of its run, or train "
                "into a new folder"
            )
        raise TrainingError(
            "checkpoint: of these pairs, split in another way; resume with the data.held_out, "
            "data.split_seed and overlaps of its run, or train into a new folder"
        )


def find_overlaps(data: Path, named: str | Path | None) -> Path | None:
    """The list of overlapping pairs that is named, or one that lies in or beside the data."""
    if named:
        return Path(named)
    # The parent of "." by its name is itself.
    beside = (folder / OVERLAPS_NAME for folder in (data, data.absolute().parent))
    return next((path for path in beside if path.is_file()), None)


def digest_split(source: PairSource, split: Split) -> SplitDigest:
    """The digest; the same for DATA and DATA/train, and for any order of the pairs."""
    parts = (range(len(source)), split.held_out, split.train)
    return SplitDigest(*(digest_names(source.names[i] for i in part) for part in parts))


def digest_names(names: Iterable[str]) -> str:
    """sha256 of the names of pairs, whatever their order and the folder they are split by."""
    text = json.dumps(sorted(_plain(name) for name in names))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_pairs(source: PairSource, chosen: Iterable[int]) -> str:
    """sha256 of the names of pairs and of the pixels of some, evenly spread, whatever their order.

    Two rasters of one size are cut into pairs of the same names, as are two .npz files of one
    length: names alone take one for the other.

    Raises:
        PairError: one of these pairs is damaged.
    """
    ordered = sorted(chosen, key=lambda i: _plain(source.names[i]))
    digest = hashlib.sha256(digest_names(source.names[i] for i in ordered).encode())
    count = min(LOOKED_AT, len(ordered))
    for place in range(count):
        for image in source.read(ordered[place * len(ordered) // count]):
            digest.update(repr(image.shape).encode() + image.tobytes())
    return digest.hexdigest()


def split_pairs(
    source: PairSource, *, share: float = 0.1, overlaps: Path | None = None, seed: int = 0
) -> Split:
    """Holds out the val folder if there is one, otherwise a share of the pairs.

    Pairs that show common ground stay together: whole connected components of the overlap graph
    are held out, in an order that depends on the seed and the names only. Where these would be
    less than half of the share or more than double, as where nearly all are one component, a patch
    of the largest one is held out too, and what overlaps the patch is in neither part.

    Args:
        source: the pairs.
        share: wanted share of held-out pairs, 0 to 1 (exclusive); met from below.
        overlaps: JSON list of ``{"a": name, "b": name}`` (or ``[name, name]``) of pairs with
            common ground; names may be numbers.
        seed: chooses which components are held out.

    Raises:
        OptionError: the share is out of range.
        PairError: the overlap file is damaged or of other data, or nothing can be held out.
    """
    if not 0 <= share < 1:
        raise OptionError(f"share: {share} found, 0 to below 1 is needed; 0.1 is usual")
    everything = range(len(source))
    parts = {i for i in everything if source.part(i) in HELD_OUT_PARTS}
    if parts or share == 0:
        train = [i for i in everything if i not in parts]
        return Split(train, sorted(parts), by_folder=bool(parts))
    edges = _read_overlaps(overlaps, source) if overlaps else []
    components = _components(source, edges)
    wanted = max(1, round(share * len(source)))
    near = _neighbours(len(source), edges)
    whole: list[int] = []
    for component in sorted(components, key=lambda c: _rank(source.names[c[0]], seed)):
        if len(whole) + len(component) <= wanted:
            whole += component
    # Where every component is larger than the share.
    held_out = whole or min(components, key=len)
    if len(components) > 1 and wanted <= 2 * len(held_out) <= 4 * wanted:
        return _around(held_out, near)
    largest = max(components, key=len)
    first = min(largest, key=lambda i: _rank(source.names[i], seed))
    split = _around(_grown([*whole, first], near, wanted), near)
    if split.train:
        return split
    if len(components) > 1:
        return _around(held_out, near)
    raise PairError(
        f"{len(source)} pair(s) in one piece of ground: at least 2 separate ones are needed "
        "to hold some out; add pairs or give a val folder"
    )


def _around(held_out: list[int], near: Sequence[set[int]]) -> Split:
    """Holds these out; neither they nor what is near one of them is learned from."""
    taken = set(held_out).union(*(near[i] for i in held_out))
    return Split([i for i in range(len(near)) if i not in taken], sorted(held_out))


def _grown(patch: list[int], near: Sequence[set[int]], wanted: int) -> list[int]:
    """The patch with its surroundings, breadth first, so that its border is short."""
    within = set(patch)
    for i in patch:  # which grows meanwhile
        more = sorted(near[i] - within)[: max(0, wanted - len(patch))]
        within.update(more)
        patch += more
    return patch


def _neighbours(count: int, edges: Iterable[tuple[int, int]]) -> list[set[int]]:
    near: list[set[int]] = [set() for _ in range(count)]
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    return near


def _rank(name: str, seed: int) -> bytes:
    # A hash and not a shuffle: more files or another order move few pairs across the split.
    return hashlib.sha256(f"{seed}:{_plain(name)}".encode(errors="surrogateescape")).digest()


def _plain(name: str) -> str:
    """A name without its part: DATA and DATA/train must not hold out different pairs."""
    return name.removeprefix(f"{part_of(name)}/")


def _components(source: PairSource, edges: list[tuple[int, int]]) -> list[list[int]]:
    """Connected components, each ascending."""
    parent = list(range(len(source)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in edges:
        parent[root(a)] = root(b)
    members: dict[int, list[int]] = {}
    for i in range(len(source)):
        members.setdefault(root(i), []).append(i)
    return list(members.values())


def _read_overlaps(path: Path, source: PairSource) -> list[tuple[int, int]]:
    """Edges between indices of the source; pairs that it does not hold are left out."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        named = [
            (str(e["a"]), str(e["b"])) if isinstance(e, dict) else (str(e[0]), str(e[1]))
            for e in entries
        ]
    except FileNotFoundError as error:
        raise PairError(f"{path}: not found, an overlap file is needed; check the path") from error
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise PairError(
            f'{path}: cannot be read, a JSON list of {{"a": name, "b": name}} is needed; '
            "write it again or leave it out"
        ) from error
    # A name without its folder is enough: the file is usually made for one folder. Where several
    # have the name, it is meant in each of them.
    index: dict[str, list[int]] = {}
    for i, name in enumerate(source.names):
        index.setdefault(name.rpartition("/")[2], []).append(i)
    index |= {name: [i] for i, name in enumerate(source.names)}
    if named and not any(name in index for edge in named for name in edge):
        raise PairError(f"{path}: names none of the pairs; give the overlap file of this data")
    folders = [name.rpartition("/")[0] for name in source.names]
    edges = []
    for a, b in named:
        met = [(i, j) for i in index.get(a, ()) for j in index.get(b, ())]
        edges += [(i, j) for i, j in met if folders[i] == folders[j]] or met
    return edges
