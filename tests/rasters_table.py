"""Runs every raster of a folder through tilemapper and prints a table of what came out.

    python tests/rasters_table.py [FOLDER] [--json] [--bidx 1,1,1] [--gsd native]
    python tests/rasters_table.py FOLDER --command render --model maps

FOLDER is $TILEMAPPER_TEST_DATA/rasters if it is not given. Without --command each raster is
inspected and read in strips (the source view alone); with it, `tilemapper COMMAND RASTER OUT` runs.
Each runs in a process of its own, 60 s at most (--timeout). It may end well, or with one line on
stderr. Anything else is a defect, and the program then ends with 1: a traceback, a signal, the time
limit, more than 1 GB beyond this program's own, an output that is no valid COG, an output left
behind by a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_BYTES = 10**9
SIDECARS = (".ovr", ".msk", ".csv", ".json", ".xml", ".md", ".txt", ".wld", ".tfw")
STRIP_ROWS = 192


def read_all(path: str, options: dict[str, Any]) -> str:
    """Inspects a raster and reads it in strips; what the child process does. Returns a summary."""
    from tilemapper.raster.source import SourceOptions, SourceView, inspect_source

    spec = inspect_source(path, SourceOptions(**options), 0.9)
    for notice in spec.notices:
        print(f"notice: {notice}", file=sys.stderr)
    valid_pixels = 0
    with SourceView(spec) as view:
        for row in range(0, view.height, STRIP_ROWS):
            height = min(STRIP_ROWS, view.height - row)
            for col in range(0, view.width, 6700):
                width = min(6700, view.width - col)
                rgb, valid = view.read(row=row, col=col, height=height, width=width)
                assert rgb.shape == (height, width, 3) and rgb.dtype == "uint8"
                valid_pixels += int(valid.sum())
    share = valid_pixels / (view.height * view.width)
    return f"{spec.height}x{spec.width} valid {share:.1%}"


def action(path: Path, arguments: argparse.Namespace, folder: str) -> list[str]:
    """The command line that is run for one raster; folder may take an output."""
    if arguments.command is None:
        command = [sys.executable, __file__, "--read", str(path)]
    else:
        out = str(Path(folder) / "out.tif")
        command = [sys.executable, "-m", "tilemapper", arguments.command, str(path), out]
        command += ["--model", arguments.model] if arguments.model else []
    for name in ("bidx", "gsd"):
        value = getattr(arguments, name)
        command += [f"--{name}", value] if value else []
    for driver in arguments.allow_driver:
        command += ["--allow-driver", driver]
    return command


def run_one(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the action for one raster; a row of the table."""
    started = time.perf_counter()
    # A folder of this run alone, and away from the raster, so that leftovers are seen.
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        output = Path(folder) / "stdout"
        with output.open("wb") as stdout:
            child = subprocess.Popen(
                action(path, arguments, folder), stdout=stdout, stderr=log, cwd=folder
            )
        code, peak_bytes, timed_out = _wait(child, arguments.timeout)
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
        said = output.read_text(errors="replace").strip().splitlines()
        out = Path(folder) / "out.tif"
        left = code != 0 and out.exists()
        complaint = _complaint(out) if code == 0 and arguments.command else ""
    notices = [line for line in lines if line.startswith(("notice: ", "warning: "))]
    errors = [line for line in lines if line not in notices]
    row = {
        "file": path.name,
        "path": str(path),
        "exit": code,
        "seconds": round(time.perf_counter() - started, 2),
        "peak_mb": round(peak_bytes / 1e6),
        "said": errors[-1] if code and errors else (said[-1] if said else ""),
        "notices": notices,
    }
    if complaint:
        return row | {"outcome": "DEFECT: output", "said": complaint}
    return row | {"outcome": _outcome(code, errors, timed_out, left, peak_bytes)}


def _complaint(out: Path) -> str:
    """What is wrong with an output; nothing if it is a valid COG that reads to the end."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rio_cogeo.cogeo import cog_validate

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            valid, faults, _ = cog_validate(out, quiet=True)
            with rasterio.open(out) as src:
                for _, window in src.block_windows(1):
                    src.read(window=window)
    except (RasterioError, OSError) as error:
        return f"output cannot be read: {error}"
    return "" if valid else f"output is no valid COG: {'; '.join(faults)}"


def _wait(child: subprocess.Popen[bytes], timeout_s: float) -> tuple[int, int, bool]:
    """Exit code, peak memory in bytes, and whether the time ran out."""
    deadline = time.monotonic() + timeout_s
    timed_out = False
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline and not timed_out:
            child.kill()
            timed_out = True
        time.sleep(0.01)
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return child.returncode, usage.ru_maxrss * unit, timed_out


def _outcome(code: int, errors: list[str], timed_out: bool, left: bool, peak_bytes: int) -> str:
    if timed_out:
        return "DEFECT: time"
    if code < 0:
        return f"DEFECT: signal {-code}"
    if peak_bytes > MAX_BYTES + _baseline_bytes():
        return "DEFECT: memory"
    if code == 0:
        return "read"
    if len([line for line in errors if line.startswith("error: ")]) != 1 or len(errors) != 1:
        return "DEFECT: not one line"
    return "DEFECT: output left" if left else "refused"


def _baseline_bytes() -> int:
    """What this program itself takes, which is less than any interpreter with rasterio."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rasters_of(folder: Path) -> list[Path]:
    """All files of a folder and those below it that are not sidecars, by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if path.suffix.lower() not in SIDECARS]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 1 if there is a defect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--command", help="run `tilemapper COMMAND RASTER OUT`: render")
    parser.add_argument("--model", help="model for --command")
    parser.add_argument("--bidx", help="bands, such as 1,1,1")
    parser.add_argument("--gsd", help="auto, native or metres")
    parser.add_argument("--allow-driver", action="append", default=[])
    parser.add_argument("--timeout", type=float, default=60, help="seconds a raster may take")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.read:
        return _child(arguments)
    # Absolute, because each raster is run from a folder of its own.
    folder = (arguments.folder or Path(os.environ["TILEMAPPER_TEST_DATA"]) / "rasters").resolve()
    rows = []
    for path in rasters_of(folder):
        rows.append(run_one(path, arguments))
        if not arguments.json:
            print(_line(rows[-1], folder), flush=True)
    counts = {name: 0 for name in ("read", "refused", "defect")}
    for row in rows:
        counts[row["outcome"] if row["outcome"] in counts else "defect"] += 1
    if arguments.json:
        print(json.dumps({"rows": rows, **counts}))
    else:
        print(f"{len(rows)} rasters: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    return 1 if counts["defect"] else 0


def _child(arguments: argparse.Namespace) -> int:
    """Reads one raster in this process, and ends as the command does."""
    from tilemapper.errors import TilemapperError

    options: dict[str, Any] = {"allow_drivers": tuple(arguments.allow_driver)}
    if arguments.bidx:
        options["bidx"] = tuple(int(band) for band in arguments.bidx.split(","))
    if arguments.gsd:
        words = ("auto", "native")
        options["gsd"] = arguments.gsd if arguments.gsd in words else float(arguments.gsd)
    try:
        print(read_all(arguments.read, options))
    except TilemapperError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _line(row: dict[str, Any], folder: Path) -> str:
    name = str(Path(row["path"]).relative_to(folder))
    return (
        f"{row['outcome']:<22} {row['exit']:>4} {row['seconds']:>6.2f} s {row['peak_mb']:>5} MB  "
        f"{name}  {row['said'].replace(row['path'], row['file'])}"
        + "".join(f"\n{'':>46}{n.replace(row['path'], row['file'])}" for n in row["notices"])
    )


if __name__ == "__main__":
    sys.exit(main())
