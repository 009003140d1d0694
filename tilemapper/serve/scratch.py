"""A server's own folder below the system's temporary one, locked for as long as it is at work."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "tilemapper-serve-"


class Scratch:
    """An empty folder of one's own, gone with `close`.

    The lock tells other servers, in other containers too, and systemd-tmpfiles, which leaves
    locked folders alone, that it is somebody's. It ends with the process however that ends, and
    the next server removes what was left. A file system that locks no folders keeps it.
    """

    def __init__(self) -> None:
        _remove_orphans()
        # Another server would take it for an orphan before it is locked, had it its name already.
        made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
        self._held = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):
            fcntl.flock(self._held, fcntl.LOCK_EX)
        self.path = made.rename(made.with_name(made.name.removeprefix(".")))

    def close(self) -> None:
        """Removes the folder and all that is in it, and lets go of its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)


def _remove_orphans() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Other users' folders, links, and what other servers remove at this moment.
        with contextlib.suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(held).st_uid == os.getuid():
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)
