"""Whether a run of this or another machine is alive, and whether machines share a folder."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from pathlib import Path

# Runs at work in this process: one that ended without a word, its disk full, is not among them.
AT_WORK: set[str] = set()
_DAY_S = 86_400.0
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "lustre", "gpfs", "fuse", "9p", "beegfs", "ceph")


def birth_of(pid: int) -> str | None:
    """Which process a number means: machine's boot, its process space, tick at which it began.

    None if there is no such process, or no way to tell.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
    after_name = text.rpartition(")")[2].split()
    # A zombie has died, though its number is still taken.
    return None if after_name[0] == "Z" else f"{boot}/{space}/{after_name[19]}"


def is_alive(run: sqlite3.Row) -> bool:
    """Whether a run, as a row of the ledger, still works: its process here, its heart elsewhere."""
    here = birth_of(os.getpid())
    if here and run["birth"] == here:
        return run["id"] in AT_WORK
    if here and run["birth"] and here.rpartition("/")[0] == run["birth"].rpartition("/")[0]:
        return birth_of(run["pid"]) == str(run["birth"])
    # Another machine or container: its heart decides. Its clock may be ahead of this one, but if
    # that is by more than a day, one of the two was put back since it beat.
    return bool(-_DAY_S < time.time() - run["beat_s"] < run["lease_s"])


def is_on_network(folder: Path) -> bool:
    """Whether a folder lies on a file system that several machines share."""
    try:
        mounts = os.fsdecode(Path("/proc/mounts").read_bytes()).split("\n")
    except OSError:
        return False
    best, kind = "", ""
    place = str(folder.resolve())
    for line in filter(None, mounts):
        _, point, name, *_ = line.split(" ")
        point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), point)  # a space
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind.startswith(_NETWORK_FILE_SYSTEMS)
