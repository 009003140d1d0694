"""Renders a case through the identity and says what is wrong with what came of it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from tests.conftest import write_raster
from tests.corpus.case import AS_READ, REFUSED, Case, Place, Right
from tests.corpus.forks import Ended, Forks, Listener, Watch

SECRET = "canary-5f1d0c"
SECRET_LEVEL = 77


class Judge:
    """Makes, renders and judges cases, each in a folder of its own below ``root``."""

    def __init__(self, forks: Forks, listener: Listener, root: Path, model: Path) -> None:
        self._forks, self._listener, self._root, self._model = forks, listener, root, model
        self.canary = root / "canary.txt"
        self.canary.write_text(SECRET)
        pixels = np.full((3, 70, 90), SECRET_LEVEL, np.uint8)
        self.canary_raster = write_raster(root / "canary.tif", pixels)
        self._watch = Watch(self.canary, self.canary_raster)
        self._connections = 0

    def close(self) -> None:
        """Stops watching the canaries."""
        self._watch.close()

    def faults(self, number: int, case: Case) -> list[str]:
        """What is wrong with how this case ended; empty if nothing is."""
        folder = self._root / f"{number:03}"
        folder.mkdir()
        place = Place(folder, self.canary, self.canary_raster, folder / "ran", self._listener.url)
        source = case.write(place)
        before = {path.name for path in folder.iterdir()}
        self._watch.opened()
        self._connections = len(self._listener.connections)
        out = folder / "out.tif"
        ended = self._forks.run(
            "render", source, out, "--model", self._model, *case.options,
            cwd=folder, env=self._listener.env | case.notes.get("env", {}),
        )  # fmt: skip
        left = {path.name for path in folder.iterdir()} - before
        faults = [ended.costs_too_much(), *self._touched(ended, place, out)]
        if case.outcome == REFUSED:
            faults += refusal_faults(ended, case.says)
            # Blocks that were finished before a damaged one are kept, as documented.
            faults += [f"{name} left" for name in left - {"out.tif.part"}]
        else:
            faults += _success_faults(ended, left) or _pixel_faults(case, source, out)
        return [fault for fault in faults if fault]

    def _touched(self, ended: Ended, place: Place, out: Path) -> list[str]:
        faults = [f"{name} opened" for name in self._watch.opened()]
        faults += [f"asked for {line}" for line in self._listener.connections[self._connections :]]
        faults += ["its code ran"] if place.ran.exists() else []
        written = out.read_bytes() if out.exists() else b""
        told = SECRET in ended.stdout + ended.stderr or SECRET.encode() in written
        return faults + (["canary told"] if told else [])


def refusal_faults(ended: Ended, says: str = "", code: int = 1) -> list[str]:
    """What is wrong with a refusal: its code, and that it is one line and no more."""
    faults = [] if ended.code == code else [f"exit {ended.code}: {ended.stderr[-300:]}"]
    if len(ended.errors) != 1 or ended.lines[-1].lower() != f"error: {ended.errors[0]}".lower():
        faults.append(f"not one line: {ended.stderr[-300:]!r}")
    elif says not in ended.errors[0]:
        faults.append(f"{says!r} not said: {ended.errors[0]}")
    return faults + talk_faults(ended)


def talk_faults(ended: Ended) -> list[str]:
    """Lines on stderr that are neither notices of ours, which name a file, nor the error."""
    faults = ["a defect"] if "defect" in ended.stderr else []
    steers = not all(line.isprintable() for line in ended.lines)
    faults += ["steers the terminal"] if steers else []
    lines = [line for line in ended.lines if not line.lower().startswith("error: ")]
    return faults + [
        f"says {line!r}" for line in lines if not line.startswith((os.sep, "warning: "))
    ]


def _success_faults(ended: Ended, left: set[str]) -> list[str]:
    if ended.code != 0:
        return [f"exit {ended.code}: {ended.stderr[-300:]}"]
    return [f"{name} left" for name in left - {"out.tif"}] + talk_faults(ended)


def _pixel_faults(case: Case, source: Path, out: Path) -> list[str]:
    pixels, valid = read(out)
    if case.outcome == AS_READ:
        try:
            wanted, wanted_valid = read(source)
        except (RasterioError, OSError, ValueError) as error:
            return [f"rendered, though GDAL cannot read it: {error}"]
        right = Right(wanted, wanted_valid)
    else:
        assert isinstance(case.outcome, Right)
        right = case.outcome
    if pixels.shape != right.pixels.shape:
        return [f"{pixels.shape} came out, {right.pixels.shape} is right"]
    wanted_valid = np.ones(valid.shape, bool) if right.valid is None else right.valid
    if not np.array_equal(valid, wanted_valid):
        return [f"{valid.sum()} pixels valid, right are {wanted_valid.sum()}"]
    far = np.abs(pixels.astype(int) - right.pixels.astype(int))[:, valid]
    most = far.max(initial=0)
    return [f"pixels are {most} levels off"] if most > right.tolerance else []


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Bands 1 to 3 and validity of a TIFF or JPEG 2000, read by GDAL alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        tiff = path.read_bytes()[:2] in (b"II", b"MM")
        with rasterio.open(path, driver="GTiff" if tiff else "JP2OpenJPEG") as src:
            return src.read([1, 2, 3]), src.dataset_mask() != 0
