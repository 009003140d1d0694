"""What may come of a command under a fault, checked for every pixel.

Sources are painted by a formula and rendered by stand-in models with a known answer, so the right
map is known without rendering it. The first map is compared with the formula pixel by pixel; from
then on the same command must give the same bytes whatever happened to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from tests.conftest import write_raster
from tests.faults.injection import Driver, Ended, Fault
from tilemapper.render.journal import read_journal
from tilemapper.render.staging import staging_folder

# The last: an output that a full disk kept from being written, and that did not say its name.
UNFORESEEN = ("Traceback", "defect of tilemapper", "stdout or temporary files")


def painted(height: int, width: int) -> NDArray[np.uint8]:
    """The formula: (3, height, width) uint8; in patches of 16 px one band is far above the others.

    So both the identity and a palette of three classes (the strongest band wins) have one answer.
    """
    row, col = np.mgrid[:height, :width]
    strongest = (row // 16 + col // 16) % 3
    pixels = np.stack(
        [(row * 7 + col * 13 + band * 29 + row * col % 251) % 64 for band in range(3)]
    )
    np.put_along_axis(pixels, strongest[None], 180 + (row * 3 + col * 5) % 64, axis=0)
    return pixels.astype(np.uint8)


def holes(height: int, width: int) -> NDArray[np.bool_]:
    """Which pixels are valid, (height, width) bool: patches of 64 px are not."""
    row, col = np.mgrid[:height, :width]
    valid: NDArray[np.bool_] = (row // 64 + col // 64) % 5 != 0
    return valid


def write_source(path: Path, height: int, width: int, *, masked: bool = False) -> Path:
    """A raster painted by the formula, with holes where ``masked``."""
    mask = holes(height, width) if masked else None
    return write_raster(path, painted(height, width), mask=mask)


def check_map(path: Path, wanted: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> None:
    """Compares every pixel and the mask of a map with what the formula says."""
    with rasterio.open(path) as dst:
        keep = dst.dataset_mask() > 0
        expected = np.ones(keep.shape, bool) if valid is None else valid
        np.testing.assert_array_equal(keep, expected)
        np.testing.assert_array_equal(dst.read() * keep, wanted * expected)
        assert dst.crs is not None


def sha256(path: Path) -> str | None:
    """Of a file's bytes; None when there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


@dataclass
class Oracle:
    """Judges runs of one ``tilemapper render`` that writes into a folder of its own.

    Args:
        arguments: the command line; must have ``--overwrite`` and ``--json``.
        folder: where the targets are, and nothing else.
        old: bytes that stand under a name before, by name; None for a name that is not there.
    """

    arguments: Sequence[str]
    folder: Path
    old: dict[str, bytes | None]
    expected: dict[str, str | None] = field(default_factory=dict)
    seconds: float = 0.0  # of an undisturbed run

    @property
    def target(self) -> Path:
        """The first target, beside which the staging folder lies."""
        return self.folder / next(iter(self.old))

    def reset(self) -> None:
        """Brings the folder into the state to start from."""
        remove_tree(self.folder)
        self.folder.mkdir()
        for name, data in self.old.items():
            if data is not None:
                (self.folder / name).write_bytes(data)

    def learn(self, driver: Driver) -> None:
        """Renders undisturbed; what comes out is what must always come out."""
        self.reset()
        ended = driver.run(self.arguments)
        assert (ended.code, ended.err) == (0, ""), ended
        self.expected = {name: sha256(self.folder / name) for name in self.old}
        self.seconds = ended.seconds
        assert sorted(path.name for path in self.folder.iterdir()) == sorted(self.old)

    def complaints(self, ended: Ended, *codes: int) -> list[str]:
        """What is wrong with a disturbed run; empty when all is as it must be."""
        said = []
        if ended.late:
            said.append("hangs")
        if ended.code not in codes:
            said.append(f"exit code {ended.code}, not {codes}")
        if ended.code == 0:
            if ended.err:
                said.append(f"exit 0, but says {ended.err!r}")
            said += [f"{name}: wrong with exit 0" for name in self.wrong_names()]
        elif ended.code > 0:
            said += self.bad_words(ended)
        for name, data in self.old.items():
            old = None if data is None else hashlib.sha256(data).hexdigest()
            if sha256(self.folder / name) not in (old, self.expected[name]):
                said.append(f"{name}: neither what stood there nor the whole new one")
        return said

    def bad_words(self, ended: Ended) -> list[str]:
        """What is wrong with what a failed run says."""
        said = []
        begin = "interrupted by signal " if ended.code in (130, 143) else "error: "
        if len(ended.err.splitlines()) != 1 or not ended.err.startswith(begin):
            said.append(f"not one line that begins with {begin!r}: {ended.err!r}")
        if any(words in ended.err for words in UNFORESEEN):
            said.append(f"an error that was not foreseen: {ended.err!r}")
        if ended.out:
            said.append(f"exit {ended.code}, but a result on stdout: {ended.out!r}")
        return said

    def wrong_names(self) -> list[str]:
        """Names whose bytes are not those of an undisturbed run."""
        return [n for n, wanted in self.expected.items() if sha256(self.folder / n) != wanted]

    def has_begun(self) -> bool:
        """Whether a block is finished, or more."""
        journal = read_journal(staging_folder(self.target) / "journal")
        return bool(journal) or sha256(self.target) == self.expected[self.target.name]

    def go_on(self, driver: Driver) -> list[str]:
        """The same command again, undisturbed; says what is wrong with its end."""
        finished = len(read_journal(staging_folder(self.target) / "journal"))
        if sha256(self.target) == self.expected[self.target.name]:
            finished = 0  # it had ended already: what is left of the staging folder is litter
        ended = driver.run(self.arguments)
        if ended.code != 0 or ended.err:
            return [f"the same command again ends with {ended.code}: {ended.err!r}"]
        said = [f"{name}: other bytes after going on" for name in self.wrong_names()]
        resumed = json.loads(ended.out)["blocks_resumed"]
        if resumed < finished:
            said.append(f"{finished} blocks stood in the journal, {resumed} were kept")
        litter = {path.name for path in self.folder.iterdir()} - set(self.old)
        if litter:
            said.append(f"left behind: {sorted(litter)}")
        return said


def oracle_of(source: Path, target: Path, model: Path, driver: Driver, *more: str) -> Oracle:
    """What has learnt how a source is rendered by a model, in one block."""
    words = ["render", str(source), str(target), "--model", str(model), "--block", "512"]
    words += ["--overwrite", "--json", "--gsd", "native", *more]
    oracle = Oracle(words, target.parent, {"map.tif": None})
    oracle.learn(driver)
    return oracle


def misread(
    driver: Driver, oracle: Oracle, fault: Fault, source: Path, folder: Path
) -> tuple[Ended, list[str]]:
    """Renders while a source cannot be read, then once more; says how it ended and what is wrong.

    folder: where reads fail; the source itself, or what lies beside it too.
    """
    oracle.reset()
    ended = driver.run(oracle.arguments, fault, folder)
    said = oracle.complaints(ended, 0, 1)
    if ended.code > 0 and str(source) not in ended.err:
        said.append(f"does not name the file: {ended.err!r}")
    return ended, said + oracle.go_on(driver)


def remove_tree(folder: Path) -> None:
    """Removes a folder and what is in it, if it is there."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink()
        folder.rmdir()
