"""Files that are whole or not there: temporary name, write, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from tilemapper.errors import DiskFullError, OptionError, TargetError, TilemapperError, shortage

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What file systems answer that sync no folders, such as some of a network or of virtual machines.
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
GEOTIFF = (".tif", ".tiff")
_SUFFIXES = (
    *GEOTIFF, ".png", ".jpg", ".jpeg", ".jp2", ".webp", ".gif", ".svg", ".vrt", ".img", ".nc",
    ".pdf", ".html",
)  # fmt: skip


def writing_failed(path: Path | str, error: OSError) -> TilemapperError:
    """The error to raise for an OSError met while writing ``path``: disk full, limits, target."""
    if error.errno in FULL:
        return DiskFullError(
            f"{path}: {error.strerror}; free some space and run the same command again"
        )
    return shortage(error) or TargetError(
        f"{path}: cannot be written ({error.strerror or error}); choose another path"
    )


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are not there.

    Raises:
        DiskFullError, TargetError: it cannot be made.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
        # One above it was taken away by another run just then, or none can be made there.
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_failed(folder, error) from error


def check_name(path: Path) -> None:
    """Refuses a path at which nothing can lie, since a name in it is too long.

    Raises:
        TargetError: it is.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except NotADirectoryError:
        return  # is told by whoever needs the folder
    except OSError as error:
        raise writing_failed(path, error) from error


def check_regular(path: Path) -> None:
    """Refuses a pipe or device, and ``/dev/stdout``: a rename would put a file in its place.

    Raises:
        TargetError: it is one.
    """
    # /dev/stdout leads to a regular file where the shell has sent it to one.
    device = path.is_symlink() and path.readlink().is_relative_to("/proc")
    if device or (path.exists() and not path.is_file() and not path.is_dir()):
        raise TargetError(f"{path}: is no regular file; choose another output")


def check_suffix(path: Path, kind: str, own: Sequence[str], then: str = "") -> None:
    """Refuses a name of another kind of file: programs would open it as what it is not.

    kind: what is written there; ``own``: its suffixes. then: what else may be done about it.

    Raises:
        OptionError: the name ends as those of another kind do.
    """
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES and suffix not in own:
        raise OptionError(
            f"{path}: {suffix} is another kind of file, what is written is {kind}; name it "
            f"{path.with_suffix(own[0]).name}{then}"
        )


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file or folder is the one that a path names now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Makes a file's bytes survive a power cut, whoever wrote them."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: Path, inside: Path | None = None) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; renames it onto ``path`` once it is on the disk.

    Whatever goes wrong inside, the temporary file is removed and ``path`` stays as it was. After
    a kill or a power cut it is left behind: a folder that is cleared anyway, on the same file
    system, may be given as ``inside``.

    Raises:
        DiskFullError: the disk is full or the quota is used up.
        TargetError: the folder is missing or may not be written, or a pipe or device lies there.
    """
    path = Path(path)
    # The suffix stays: GDAL and others choose a format by it. The name's end may be cut, since
    # file systems limit names to 255 bytes, and a letter may be four of them.
    start = os.fsencode(path.stem)[:80].decode(errors="ignore")
    part = (inside or path.parent) / (
        f".{start}.{os.getpid()}.{secrets.token_hex(4)}.tmp{path.suffix}"
    )
    try:
        check_regular(path)
        yield part
        fsync_file(part)
        part.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        # Also raised by rasterio and by our own errors that are OSErrors: those go on unchanged.
        if isinstance(error, TilemapperError) or error.errno is None:
            raise
        raise writing_failed(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Writes a whole small file; see `atomic_write`."""
    with atomic_write(path) as part:
        part.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Writes a whole small UTF-8 file; see `atomic_write`."""
    write_bytes_atomic(path, text.encode())
