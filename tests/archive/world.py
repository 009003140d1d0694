"""A small archive with poisoned scenes, made by the tests and the benchmark for themselves."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

CRS_ = CRS.from_epsg(32618)
LEFT, TOP, STEP = 500_000.0, 4_500_000.0, 200.0
# Holds all good scenes; the poisoned one that lies elsewhere does not touch it.
BOUNDS = (LEFT, TOP - 1e5, LEFT + 1e5, TOP)

JOB = """kind = "archive"
name = "nightly"

[source]
scenes = ["in"]

[output]
template = "out/{{relpath}}_map.tif"

[render]
model = "{model}"
device = "cpu"
{render}

[run]
retries = {retries}
lease_s = 3
{run}
"""


def write_scene(
    path: Path, index: int, *, size: int = 40, bands: int = 3, at: float | None = None
) -> Path:
    """A tiny georeferenced raster of its own noise, on a row of its own."""
    pixels = np.random.default_rng(index).integers(1, 256, (bands, size, size), dtype=np.uint8)
    left = LEFT + STEP * (index % 100) if at is None else at
    transform = Affine(1, 0, left, 0, -1, TOP - STEP * (index // 100))
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff", "height": size, "width": size, "count": bands, "dtype": "uint8",
        "crs": CRS_, "transform": transform,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(pixels)
    return path


def write_archive(folder: Path, count: int, *, size: int = 40, days: int = 3) -> list[Path]:
    """``count`` good scenes in a few folders of days."""
    return [
        write_scene(folder / f"2026-03-0{1 + i % days}" / f"scene_{i:05d}.tif", i, size=size)
        for i in range(count)
    ]


def without_privileges() -> list[str] | None:
    """What to put before a command so that file rights hold for it; None if nothing can.

    Root may read everything, by two capabilities that a command can be started without.
    """
    if os.geteuid() != 0:
        return []
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    with tempfile.NamedTemporaryFile() as secret:
        Path(secret.name).chmod(0)
        try:
            done = subprocess.run([*prefix, "cat", secret.name], capture_output=True, check=False)
        except OSError:
            return None
    return prefix if b"denied" in done.stderr else None


def poison(folder: Path, *, rights_hold: bool | None = None) -> dict[str, str]:
    """Ten scenes that cannot be rendered: name -> a word that its reason must have.

    rights_hold: whether those who read them are bound by file rights; root is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    good = write_scene(folder / "short.tif", 1, size=400).read_bytes()
    (folder / "short.tif").write_bytes(good[: len(good) // 2])
    (folder / "empty.tif").write_bytes(b"")
    (folder / "disguised.tif").write_text(
        '<VRTDataset rasterXSize="40" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1">'
        "<SimpleSource><SourceFilename>/etc/hostname</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    write_scene(folder / "two_bands.tif", 2, bands=2)
    (folder / "bomb.tif").write_bytes(bomb())
    write_scene(folder / "unreadable.tif", 3).chmod(0)
    (folder / "folder.tif").mkdir()
    (folder / "dangling.tif").symlink_to(folder / "nothing")
    write_scene(folder / "plain.tif", 4).rename(folder / "new\nline.tif")
    write_scene(folder / "elsewhere.tif", 5, at=LEFT + 5e5)
    words = {
        "short": "read", "empty": "empty", "disguised": "VRT", "two_bands": "band",
        "bomb": "bomb", "unreadable": "Permission", "folder": "folder", "dangling": "link",
        "new": "control characters", "elsewhere": "bounds",
    }  # fmt: skip
    if rights_hold is None:
        rights_hold = os.geteuid() != 0
    if not rights_hold:
        # A link that leads to itself is what root cannot read either.
        (folder / "unreadable.tif").unlink()
        (folder / "unreadable.tif").symlink_to("unreadable.tif")
        words["unreadable"] = "link"
    return words


def bomb() -> bytes:
    """A sparse TIFF of a few hundred bytes that promises 400,000 x 400,000 pixels."""
    side, count = 400_000, 1
    entries = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (277, 3, 1, count), (322, 4, 1, 131_072), (323, 4, 1, 131_072),
        (324, 4, 16, 8 + 2 + 9 * 12 + 4), (325, 4, 16, 8 + 2 + 9 * 12 + 4 + 64),
    ]  # fmt: skip
    body = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries))
    for tag, kind, number, value in entries:
        body += struct.pack("<HHII", tag, kind, number, value)
    return body + struct.pack("<I", 0) + bytes(64 * 3)


def write_job(
    folder: Path, model: Path | str, *, retries: int = 0, render: str = "", run: str = ""
) -> Path:
    """A job file over ``folder/in``, with outputs in ``folder/out``."""
    path = folder / "nightly.toml"
    path.write_text(JOB.format(model=model, retries=retries, render=render, run=run))
    return path
