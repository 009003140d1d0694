"""Counts of the fault kit: each test adds its own, one command prints them as a dated table.

    python -m tests.faults.table            prints the table
    python -m tests.faults.table --write    puts it into tests/faults/RESULTS.md

A count's name is the table's row: a test that runs again replaces its own row. The counts lie in
tests/faults/counts.json (not committed), or where TILEMAPPER_FAULT_COUNTS says.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import os
import platform
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def counts_path() -> Path:
    """Where the counts are kept."""
    return Path(os.environ.get("TILEMAPPER_FAULT_COUNTS", HERE / "counts.json"))


def count(name: str, points: int, wrong: int, note: str = "") -> None:
    """Adds or replaces one row: ``points`` faults were tried, ``wrong`` of them ended badly.

    Call it before the assertion that ``wrong`` is 0, so that a failure is counted too. Processes
    may call it at the same time.
    """
    path = counts_path()
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        counts = _read(path)
        counts[name] = {
            "points": points,
            "wrong": wrong,
            "note": note,
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        }
        part = path.with_suffix(".part")
        part.write_text(json.dumps(counts, indent=1, sort_keys=True))
        part.replace(path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        counts = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    assert isinstance(counts, dict)
    return counts


def table() -> str:
    """All rows as Markdown, by name, with the sum."""
    counts = _read(counts_path())
    lines = ["| faults | points | wrong | note | date |", "|---|---:|---:|---|---|"]
    for name in sorted(counts):
        row = counts[name]
        note = row["note"].replace("|", "\\|")
        lines.append(f"| {name} | {row['points']} | {row['wrong']} | {note} | {row['date']} |")
    points = sum(row["points"] for row in counts.values())
    wrong = sum(row["wrong"] for row in counts.values())
    lines.append(f"| **all** | **{points}** | **{wrong}** | | |")
    cores = len(os.sched_getaffinity(0))
    lines += ["", f"Python {platform.python_version()}, {platform.system()}, {cores} cores."]
    return "\n".join(lines)


def write_results() -> None:
    """Puts the table between its marks in RESULTS.md; what stands around it stays."""
    before, _, rest = RESULTS.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    RESULTS.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Counts of the fault kit as Markdown.")
    arguments.add_argument("--write", action="store_true", help=f"write them into {RESULTS.name}")
    if arguments.parse_args().write:
        write_results()
    else:
        print(table())
