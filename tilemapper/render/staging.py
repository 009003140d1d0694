"""``DST.part/``: what survives a kill. Plan, lock, journal, and one folder for each finished block.

A block's folder appears by one rename, after its files were read back and synced. The journal
has one checksummed line for each finished block, appended by the one process that holds the
lock. On resume a block counts as done only if its files still match its line.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import LockedError, StagingError, TilemapperError
from tilemapper.raster.atomic import fsync_folder, write_text_atomic, writing_failed
from tilemapper.raster.lattice import Block
from tilemapper.raster.pyramid import FileBlock, Pyramid
from tilemapper.render.plan import Layer, Plan

Rows = tuple[dict[str, NDArray[np.uint8]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Receipt:
    """What a worker hands back for a finished block: all that resume and finish need of it.

    Attributes:
        block: the block's name.
        files: sha256 of each file in the block's folder.
        pixels: sha256 of each layer's full-resolution pixels and mask, in rows of file blocks.
        any_valid, any_invalid: whether such pixels occur.
        tiles: how many tiles were run.
        disagreement: sum of squared differences between overlapping predictions, and their count.
        seconds: wall time of the block.
    """

    block: str
    files: dict[str, str]
    pixels: dict[str, str]
    any_valid: bool
    any_invalid: bool
    tiles: int = 0
    disagreement: tuple[int, int] = (0, 0)
    seconds: float = 0.0


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
        self.pixels = PixelHash()
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
        self.pixels.add(pixels, keep)
        self._pyramid.add(pixels, keep)

    def close(self) -> dict[str, str]:
        """Ends the files, syncs them, reads them back; returns their sha256 by name."""
        self._pyramid.close()
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
    try:
        part.mkdir()
        layers = {layer.name: _LayerFile(part, layer, plan, block) for layer in plan.layers}
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
        shutil.rmtree(part, ignore_errors=True)
    hashes = {name: file.pixels.hexdigest() for name, file in layers.items()}
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


@dataclass
class Staging:
    """The staging folder of one target, held by its lock."""

    folder: Path
    plan: Plan
    done: dict[str, Receipt] = field(default_factory=dict)

    @property
    def blocks(self) -> Path:
        """Where the finished blocks are."""
        return self.folder / "blocks"

    def append(self, receipt: Receipt) -> None:
        """Adds a finished block to the journal, on the disk before this returns."""
        body = json.dumps(asdict(receipt), sort_keys=True, separators=(",", ":"))
        line = f"{zlib.crc32(body.encode()):08x} {body}\n"
        path = self.folder / "journal"
        try:
            # A line torn by a kill has no end: a new line must not be glued to it.
            torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
            with path.open("ab") as journal:
                journal.write((("\n" if torn else "") + line).encode())
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            raise writing_failed(path, error) from error
        self.done[receipt.block] = receipt

    def remove(self) -> None:
        """Removes the folder once the target stands."""
        shutil.rmtree(self.folder, ignore_errors=True)


def staging_folder(target: Path) -> Path:
    """The staging folder of a target."""
    return target.with_name(target.name + ".part")


def stored_plan(target: Path) -> dict[str, Any] | None:
    """The plan that lies beside a target; None when there is none that can be read."""
    try:
        stored = json.loads((staging_folder(target) / "plan.json").read_text())
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) else None


@contextlib.contextmanager
def locked(target: Path) -> Iterator[Path]:
    """Holds the staging folder of a target, made if need be; yields it.

    Raises:
        LockedError: another run holds it.
        DiskFullError, TargetError: it cannot be made.
    """
    folder = staging_folder(target)
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise writing_failed(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The run that held it may have finished and removed the folder in between.
            if not (folder / "lock").exists() or not os.path.samestat(
                os.fstat(lock.fileno()), (folder / "lock").stat()
            ):
                raise BlockingIOError
        except BlockingIOError:
            raise LockedError(
                f"{target}: another run is rendering it; wait for it to end, or choose another "
                "output"
            ) from None
        try:
            yield folder
        finally:
            # An empty folder would only puzzle: nothing was staged, so nothing is kept.
            if folder.exists() and {path.name for path in folder.iterdir()} == {"lock"}:
                shutil.rmtree(folder, ignore_errors=True)


def open_staging(folder: Path, plan: Plan, *, restart: bool) -> Staging:
    """The staging of a plan in its locked folder, with the blocks that are done already.

    Raises:
        StagingError: it holds blocks of another plan, and ``restart`` is off.
        DiskFullError, TargetError: it cannot be written.
    """
    staging = Staging(folder, plan)
    stored = stored_plan(folder.with_name(folder.name.removesuffix(".part")))
    try:
        if restart or stored is None:
            for name in ("blocks", "journal", "plan.json"):
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        elif stored.get("fingerprint") != plan.fingerprint:
            raise StagingError(
                f"{folder}: holds an unfinished render with other {_differences(stored, plan)}; "
                "give the same options to go on with it, or --restart to begin anew"
            )
        staging.blocks.mkdir(exist_ok=True)
        for litter in staging.blocks.glob(".*"):
            shutil.rmtree(litter, ignore_errors=True)
    except OSError as error:
        if isinstance(error, TilemapperError):
            raise
        raise writing_failed(folder, error) from error
    if stored is None or restart:
        write_text_atomic(folder / "plan.json", json.dumps(plan.to_json(), indent=1))
    staging.done = {
        receipt.block: receipt
        for receipt in read_journal(folder / "journal")
        if _stands(staging.blocks / receipt.block, receipt)
    }
    return staging


def _differences(stored: dict[str, Any], plan: Plan) -> str:
    now, then = plan.deciding(), stored.get("deciding", {})
    return ", ".join(key for key in now if now[key] != then.get(key)) or "settings"


def read_journal(path: Path) -> list[Receipt]:
    """The receipts of a journal; lines that are torn or damaged are left out."""
    receipts = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            check, _, body = line.partition(b" ")
            if check == f"{zlib.crc32(body):08x}".encode():
                fields = json.loads(body)
                fields["disagreement"] = tuple(fields["disagreement"])
                receipts.append(Receipt(**fields))
    return receipts


def _stands(folder: Path, receipt: Receipt) -> bool:
    try:
        return all(file_sha256(folder / name) == sha for name, sha in receipt.files.items())
    except OSError:
        return False
