"""``DST.part/``: what survives a kill. Plan, lock, journal, and one folder for each finished block.

A block's folder appears by one rename, after its files were read back and synced. The journal
has one checksummed line for each finished block, appended by the one process that holds the
lock. On resume a block counts as done only if its files still match its line.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tilemapper.errors import LockedError, OtherPlanError, RasterChangedError, TilemapperError
from tilemapper.raster.atomic import is_at, write_text_atomic, writing_failed
from tilemapper.raster.identity import check_unchanged
from tilemapper.render.blockfile import file_sha256
from tilemapper.render.journal import Receipt, read_journal
from tilemapper.render.plan import Plan

LOG = logging.getLogger(__name__)

# A file there once all outputs of the plan stand.
FINISHED = "finished"
# What file systems answer that have no locks, such as some of a network.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_TRIES = 10


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
            with path.open("a+b") as journal:
                # A line torn by a kill has no end: a new line must not be glued to it.
                if journal.tell():
                    journal.seek(-1, os.SEEK_END)
                    line = line if journal.read(1) == b"\n" else "\n" + line
                journal.write(line.encode())
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            raise writing_failed(path, error) from error
        self.done[receipt.block] = receipt

    def check_source(self) -> None:
        """Refuses to finish when the source was written to meanwhile, and throws the blocks away.

        Raises:
            RasterChangedError: it was; blocks of both versions may be staged.
            RasterError: it cannot be opened just now; the blocks stay.
        """
        source = self.plan.source
        try:
            check_unchanged(source.path, source.identity, driver=source.driver)
        except RasterChangedError:
            self.remove()
            raise

    def note_finished(self) -> None:
        """Notes that every output stands: a run that is killed from now on has but to tidy up."""
        with contextlib.suppress(OSError):  # then the blocks are joined once more
            (self.folder / FINISHED).touch()

    def remove(self) -> None:
        """Removes the folder once the target stands.

        Of what a run finds here after a kill the plan goes last, and after it that all is done.
        """
        shutil.rmtree(self.blocks, ignore_errors=True)
        for name in ("journal", "plan.json"):
            with contextlib.suppress(OSError):  # the target stands, whatever litter stays
                (self.folder / name).unlink()
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
        lock = _opened(folder)
    except BlockingIOError:
        raise _in_use(target) from None
    except OSError as error:
        raise writing_failed(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The run that held it may have finished and removed the folder in between.
            if not is_at(lock.fileno(), folder / "lock"):
                raise BlockingIOError
        except BlockingIOError:
            raise _in_use(target) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise writing_failed(folder / "lock", error) from error
            LOG.warning("%s: no locks there; let no second run write to it", folder.parent)
        try:
            yield folder
        finally:
            # An empty folder would only puzzle: nothing was staged, so nothing is kept. Another
            # run may have made and locked it anew once ours was removed.
            with contextlib.suppress(OSError):
                empty = {path.name for path in folder.iterdir()} == {"lock"}
                if empty and is_at(lock.fileno(), folder / "lock"):
                    shutil.rmtree(folder, ignore_errors=True)


def _opened(folder: Path) -> TextIO:
    """The lock in a staging folder, both made if need be.

    Raises:
        BlockingIOError: other runs make and remove the folder all the time.
        OSError: it cannot be made.
    """
    for _ in range(_TRIES):
        try:
            folder.mkdir()
        except FileExistsError:
            if folder.is_file() or (folder.is_symlink() and not folder.is_dir()):
                raise
        # A run that ends takes the folder with it, at this moment too.
        with contextlib.suppress(FileNotFoundError):
            return (folder / "lock").open("a")
    raise BlockingIOError


def _in_use(target: Path) -> LockedError:
    return LockedError(
        f"{target}: another run is rendering it; wait for it to end, or choose another output"
    )


def check_stored(folder: Path, stored: dict[str, Any], plan: Plan) -> None:
    """Refuses to go on with blocks that are not those of the plan; ``stored``: theirs.

    Raises:
        OtherPlanError: they are of another plan, or of another size.
    """
    if stored.get("fingerprint") != plan.fingerprint:
        raise OtherPlanError(
            f"{folder}: holds an unfinished render with other {_differences(stored, plan)}; "
            "give the same options to go on with it, or --restart to begin anew"
        )
    if stored.get("block") != plan.block:
        # Blocks of another size have the same names, but cover other ground.
        raise OtherPlanError(
            f"{folder}: holds blocks of {stored.get('block')} px, {plan.block} px are asked "
            "for; leave out --block to go on with them, or give --restart to begin anew"
        )


def open_staging(folder: Path, plan: Plan, *, restart: bool) -> Staging:
    """The staging of a plan in its locked folder, with the blocks that are done already.

    Raises:
        OtherPlanError: it holds blocks of another plan or size, and ``restart`` is off.
        DiskFullError, TargetError: it cannot be written.
    """
    staging = Staging(folder, plan)
    stored = stored_plan(folder.with_name(folder.name.removesuffix(".part")))
    try:
        if restart or stored is None:
            for name in ("blocks", "journal", "plan.json", FINISHED):
                path = folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        else:
            check_stored(folder, stored, plan)
        staging.blocks.mkdir(exist_ok=True)
        for litter in staging.blocks.glob(".*"):
            shutil.rmtree(litter, ignore_errors=True)
        for litter in folder.glob(".*.tmp*"):  # a file that was being finished
            litter.unlink(missing_ok=True)
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


def _stands(folder: Path, receipt: Receipt) -> bool:
    try:
        return all(file_sha256(folder / name) == sha for name, sha in receipt.files.items())
    except OSError:
        return False
