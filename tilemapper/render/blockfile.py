"""A finished block on the disk: encoded file blocks, their index, and what is left for overviews.

Its folder appears by one rename, after the files were synced and read back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import StagingError, TilemapperError
from tilemapper.raster.atomic import fsync_folder, writing_failed
from tilemapper.raster.lattice import Block
from tilemapper.raster.pyramid import FileBlock, Pyramid
from tilemapper.render.journal import Receipt
from tilemapper.render.plan import Layer, Plan

Rows = tuple[dict[str, NDArray[np.uint8]], NDArray[np.bool_]]


class PixelHash:
    """sha256 over (bands, rows, width) and (rows, width) however the rows were cut."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, pixels: NDArray[np.uint8], keep: NDArray[np.bool_]) -> None:
        """Adds rows from top to bottom; pixels outside ``keep`` must be 0."""
        for row in range(len(keep)):
            self._hash.update(pixels[:, row].tobytes())
            self._hash.update(np.packbits(keep[row]).tobytes())

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()


class _LayerFile:
    """One layer of one block on its way to the disk: encoded file blocks one after another."""

    def __init__(self, folder: Path, layer: Layer, plan: Plan, block: Block) -> None:
        self._name = layer.name
        self._index: list[list[int]] = []
        self._file: BinaryIO = (folder / f"{layer.name}.tiles").open("wb")
        self._folder, self._sha, self._at = folder, hashlib.sha256(), 0
        self._rest: list[tuple[NDArray[np.uint8], NDArray[np.bool_]]] = []
        self.pixels = PixelHash() if plan.compares_pixels(layer) else None
        self._pyramid = Pyramid(
            width=block.width,
            first=0,
            count=plan.block_levels,
            encoding=layer.encoding,
            average=layer.average,
            emit=self._write,
            after=lambda pixels, keep: self._rest.append((pixels, keep)),
        )

    def _write(self, part: FileBlock) -> None:
        self._index.append(
            [part.level, part.row, part.col, self._at, len(part.pixels), len(part.mask)]
        )
        for data in (part.pixels, part.mask):
            self._file.write(data)
            self._sha.update(data)
            self._at += len(data)

    def add(self, pixels: NDArray[np.uint8], keep: NDArray[np.bool_]) -> None:
        if self.pixels is not None:
            self.pixels.add(pixels, keep)
        self._pyramid.add(pixels, keep)

    def release(self) -> None:
        """Closes the file, whatever came; after `close` this does nothing."""
        # On a full disk closing tries to write once more what is left; the first failure tells.
        with contextlib.suppress(OSError):
            self._file.close()

    def close(self) -> dict[str, str]:
        """Ends the files, syncs them, reads them back; returns their sha256 by name."""
        self._pyramid.close()
        # It holds this object and this object holds it, buffers and all: left to the garbage
        # collector, a dozen blocks' buffers would pile up before it looks.
        del self._pyramid
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        files = {f"{self._name}.tiles": self._sha.hexdigest()}
        index = json.dumps(self._index, separators=(",", ":")).encode()
        files |= self._write_small(f"{self._name}.json", index)
        if self._rest:
            pixels = np.concatenate([part for part, _ in self._rest], axis=1)
            keep = np.concatenate([part for _, part in self._rest])
            stacked = np.concatenate([pixels, keep[None].astype(np.uint8)])
            files |= self._write_small(
                f"{self._name}.rest", np.ascontiguousarray(stacked).tobytes()
            )
            self._rest.clear()
        for name, wanted in files.items():
            if file_sha256(self._folder / name) != wanted:
                raise StagingError(
                    f"{self._folder / name}: reads back other than it was written; check the disk, "
                    "then run the same command again"
                )
        return files

    def _write_small(self, name: str, data: bytes) -> dict[str, str]:
        with (self._folder / name).open("wb") as dst:
            dst.write(data)
            dst.flush()
            os.fsync(dst.fileno())
        return {name: hashlib.sha256(data).hexdigest()}


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in constant memory."""
    with path.open("rb") as src:
        return hashlib.file_digest(src, "sha256").hexdigest()


def stage_block(folder: Path, plan: Plan, block: Block, rows: Iterable[Rows]) -> Receipt:
    """Writes a block's rows as encoded file blocks; its folder appears whole or not at all.

    Args:
        folder: the folder of finished blocks.
        plan: says the layers and their encoding.
        block: what the rows are of.
        rows: from top to bottom, for each layer (bands, n, width) uint8, and (n, width) bool.

    Raises:
        DiskFullError, TargetError: the folder cannot be written.
        StagingError: the files read back other than they were written.
    """
    part = folder / f".{block.name}.{os.getpid()}.{secrets.token_hex(4)}"
    any_valid = any_invalid = False
    layers: dict[str, _LayerFile] = {}
    try:
        part.mkdir()
        for layer in plan.layers:
            layers[layer.name] = _LayerFile(part, layer, plan, block)
        for pixels, keep in rows:
            kept = bool(keep.any())
            any_valid, any_invalid = any_valid or kept, any_invalid or not (kept and keep.all())
            for name, file in layers.items():
                file.add(pixels[name], keep)
        files = {name: sha for file in layers.values() for name, sha in file.close().items()}
        fsync_folder(part)
        publish(part, folder / block.name)
    except OSError as error:
        if isinstance(error, TilemapperError):
            raise
        raise writing_failed(folder, error) from error
    finally:
        for file in layers.values():
            file.release()
        shutil.rmtree(part, ignore_errors=True)
    hashes = {name: file.pixels.hexdigest() for name, file in layers.items() if file.pixels}
    return Receipt(block.name, files, hashes, any_valid, any_invalid)


def publish(part: Path, final: Path) -> None:
    """Renames a block's folder into place; one that is there has the same content, or is stale."""
    if final.exists():
        stale = part.with_name(part.name + ".old")
        final.rename(stale)
        part.rename(final)
        shutil.rmtree(stale, ignore_errors=True)
    else:
        part.rename(final)
    fsync_folder(final.parent)
