"""Pairs in one .npz file: arrays A and B, memory-mapped where they are stored uncompressed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import OptionError, PairError
from tilemapper.paths import real_path
from tilemapper.raster.atomic import atomic_write
from tilemapper.training.images import RgbImage
from tilemapper.training.sources import Direction, PairSource

KEYS = (("A", "B"), ("arr_0", "arr_1"))
LOCAL_HEADER_BYTES = 30


class Npz(PairSource):
    """Arrays A and B (or arr_0 and arr_1) of one .npz file, each (n, h, w, 3) uint8."""

    def __init__(self, path: Path, direction: Direction) -> None:
        try:
            first, second, names = _read_npz(path)
        except PairError:
            raise
        # numpy and zipfile report damage by almost any class, MemoryError and SyntaxError included.
        except Exception as error:
            raise PairError(f"{path}: cannot be read as .npz ({error}); replace it") from error
        if len(first) != len(second) or not len(first):
            raise PairError(
                f"{path}: {len(first)} images A and {len(second)} images B found, as many of "
                "both are needed; write it with tilemapper pairs pack"
            )
        if len(names) != len(first):
            names = [str(i) for i in range(len(first))]
        super().__init__(names, direction)
        self.path, self.first, self.second = path, first, second

    def read(self, index: int) -> tuple[RgbImage, RgbImage]:
        """Views of both arrays."""
        return self.first[index], self.second[index]

    def place(self, index: int) -> tuple[Path, int]:
        """The file and the index."""
        return real_path(self.path), index


def pack_pairs(
    source: PairSource, path: Path, *, on_pair: Callable[[int], object] = lambda _: None
) -> None:
    """Writes all pairs to an uncompressed .npz with arrays A, B and names, one pair at a time.

    Args:
        source: the pairs; its direction must be "AtoB", so that A stays A.
        path: ends in ``.npz``; appears whole or not at all.
        on_pair: called with the number of images written so far (two for each pair).

    Raises:
        OptionError: the path does not end in .npz, or the direction is "BtoA".
        PairError: a pair is damaged or differs from the first in size.
    """
    if path.suffix.lower() != ".npz":
        raise OptionError(f"{path}: ends in {path.suffix!r}, .npz is needed; rename it")
    if source.direction != "AtoB":
        raise OptionError("direction: BtoA found, AtoB is needed to pack; leave it out")
    shape = source.load(0)[0].shape
    with (
        atomic_write(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for side, key in enumerate(KEYS[0]):
            with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array_header_2_0(
                    stream,
                    {"descr": "|u1", "fortran_order": False, "shape": (len(source), *shape)},
                )
                for index in range(len(source)):
                    image = source.load(index)[side]
                    if image.shape != shape:
                        raise PairError(
                            f"{source.names[index]}: {image.shape[1]}x{image.shape[0]} px found, "
                            f"{shape[1]}x{shape[0]} as in {source.names[0]} is needed; cut it again"
                        )
                    stream.write(np.ascontiguousarray(image).tobytes())
                    on_pair(side * len(source) + index + 1)
        with archive.open("names.npy", "w") as stream:
            np.lib.format.write_array(stream, np.array(source.names), allow_pickle=False)


def _read_npz(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    if not zipfile.is_zipfile(path):  # np.load would leave it open, or read it as .npy
        raise PairError(f"{path}: is no whole .npz file; replace it")
    # Opened here: np.load leaves a file that it cannot read open.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        keys = next((pair for pair in KEYS if set(pair) <= set(archive.files)), None)
        if keys is None:
            raise PairError(
                f"{path}: arrays {', '.join(archive.files) or 'none'} found, A and B or arr_0 "
                "and arr_1 are needed; write it with tilemapper pairs pack"
            )
        names = [str(name) for name in archive["names"]] if "names" in archive.files else []
        arrays = []
        for key in keys:
            array = _map_stored(path, f"{key}.npy")
            array = archive[key] if array is None else array
            if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
                raise PairError(
                    f"{path}: array {key} is {array.dtype} of shape {array.shape}, uint8 of shape "
                    "(n, height, width, 3) is needed; write it with tilemapper pairs pack"
                )
            arrays.append(array)
    return arrays[0], arrays[1], names


def _map_stored(path: Path, member: str) -> NDArray[np.uint8] | None:
    """A read-only map of an uncompressed uint8 member; None when it has to be loaded.

    numpy itself never maps the members of an .npz, and a data set can exceed the memory.
    """
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as stream:
        stream.seek(info.header_offset)
        header = stream.read(LOCAL_HEADER_BYTES)
        lengths = [int.from_bytes(header[at : at + 2], "little") for at in (26, 28)]
        stream.seek(info.header_offset + LOCAL_HEADER_BYTES + sum(lengths))  # name, extra field
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            return None
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(stream)
        if fortran_order or dtype != np.uint8 or not np.prod(shape):
            return None
        offset = stream.tell()
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=shape)
