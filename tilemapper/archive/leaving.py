"""What a run leaves beside the outputs: STAC, footprints, a report, figures for monitoring."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tilemapper import __version__
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.liveness import birth_of, is_on_network
from tilemapper.archive.metrics import openmetrics
from tilemapper.archive.summary import RunSummary
from tilemapper.errors import JobError
from tilemapper.paths import alone_in
from tilemapper.raster.atomic import make_folder, write_text_atomic, writing_failed
from tilemapper.raster.dateline import geometry
from tilemapper.report.archive_page import ArchivePage, Thumbnail, archive_page
from tilemapper.report.coverage import Footprint
from tilemapper.report.thumbnail import thumbnail_png

COLOURS = {
    "done": "#1a9850", "failed": "#d73027", "pending": "#fdae61", "running": "#4575b4",
    "skipped": "#999999",
}  # fmt: skip
THUMBNAILS = 24
SLOWEST = 10


def check_extras(job: ArchiveJob) -> None:
    """Refuses, before any work, what needs a package that is not installed.

    Raises:
        JobError: STAC is wanted and pystac is missing.
    """
    if job.output.stac and importlib.util.find_spec("pystac") is None:
        raise JobError(
            "output.stac: pystac is needed and not installed; run pip install "
            "'tilemapper[archive]', or set output.stac = false"
        )


def leave(job: ArchiveJob, summary: RunSummary, *, metrics: Path | None = None) -> bool:
    """Writes what a run leaves; False if nothing changed since it was last written.

    Raises:
        TargetError, DiskFullError: something cannot be written.
    """
    # One run after the other: the last one tells of all that ended.
    with Ledger(job.work / "ledger.sqlite") as ledger, alone_in(job.work):
        counts = ledger.counts()
        if metrics is not None:
            write_text_atomic(metrics, openmetrics(job.name, counts, summary.to_json()))
        files = _files(job)
        revision, known = f"{ledger.revision()} {files}", ledger.left_revision() or ""
        stands = known.endswith(f" {files}") and all((job.root / name).exists() for name in files)
        if stands and known == revision:
            return False
        last_end_s = ledger.last_end()
        # Of all scenes, where nobody wanted the same before, or somebody took it away.
        since_s = ledger.left_at() if stands else 0.0
        _ready(job.root)
        if job.output.stac:
            from tilemapper.archive import stac  # needs pystac, which is an extra

            _ready(job.root / "items")
            changed = ledger.select("state='done' AND ended_s>=?", (since_s,))
            stac.write_items(job, _visible(job, changed))
            done = ledger.select("state='done' AND NOT gone ORDER BY output")
            stac.write_collection(job, _visible(job, done))
        if job.output.report:
            write_footprints(job, ledger.select("NOT gone ORDER BY source"))
            page = archive_page(_page(job, ledger, counts, summary))
            write_text_atomic(job.root / "report.html", page)
        ledger.note_left(revision, last_end_s)
        return True


def _files(job: ArchiveJob) -> list[str]:
    """Names of what a run leaves; of the items their folder."""
    collection = ["collection.json", "items"] if job.output.stac else []
    return collection + (["footprints.geojson", "report.html"] if job.output.report else [])


def _ready(folder: Path) -> None:
    """Makes a folder, without the half files of runs that were killed."""
    make_folder(folder)
    try:
        if is_on_network(folder):
            return  # their processes may live on another machine
        for path in folder.glob(".*.tmp.*"):
            pid = path.name.split(".")[-4]
            if pid.isdecimal() and birth_of(int(pid)) is None:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise writing_failed(folder, error) from error


def _visible(job: ArchiveJob, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows without whole mosaics of which only the parts are outputs."""
    inner = str(job.work) + "/"
    return (row for row in rows if not row["output"].startswith(inner))


def write_footprints(job: ArchiveJob, rows: Iterator[dict[str, Any]]) -> None:
    """Writes ``footprints.geojson``: every scene, coloured by state; null where unknown."""
    features = []
    for row in rows:
        facts = json.loads(row["facts"]) if row["facts"] else {}
        ring = facts.get("ring")
        colour = COLOURS[row["state"]]
        features.append({
            "type": "Feature",
            "geometry": geometry(ring) if ring else None,
            "properties": {
                "scene": row["source"], "output": row["output"], "state": row["state"],
                "error": row["error"], "seconds": row["seconds"], "stroke": colour,
                "fill": colour, "fill-opacity": 0.3,
            },
        })  # fmt: skip
    text = json.dumps({"type": "FeatureCollection", "name": job.name, "features": features})
    write_text_atomic(job.root / "footprints.geojson", text)


def _page(
    job: ArchiveJob, ledger: Ledger, counts: dict[str, int], summary: RunSummary
) -> ArchivePage:
    slowest = ledger.select("state='done' AND NOT gone ORDER BY seconds DESC LIMIT ?", (SLOWEST,))
    recent = ledger.select(
        "state='done' AND NOT gone ORDER BY ended_s DESC, id LIMIT ?", (THUMBNAILS,)
    )
    failures = ledger.select("state='failed' AND NOT gone ORDER BY source")
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return ArchivePage(
        name=job.name,
        made=f"Written {now} by tilemapper {__version__}, model {job.render.model}",
        counts=counts,
        colours=COLOURS,
        figures=summary.to_json(),
        failures=[(row["source"], row["error"] or "") for row in failures],
        slowest=[(row["source"], row["seconds"], row["pixels"]) for row in slowest],
        thumbnails=list(_thumbnails(list(recent))),
        footprints=list(_footprints(ledger)),
    )


def _thumbnails(rows: list[dict[str, Any]]) -> Iterator[Thumbnail]:
    for row in rows:
        if "://" not in row["output"] and (png := thumbnail_png(row["output"])) is not None:
            yield Thumbnail(Path(row["output"]).stem, png)


def _footprints(ledger: Ledger) -> Iterator[Footprint]:
    """Footprints as they are drawn one over the other: failures on top."""
    order = "CASE state WHEN 'failed' THEN 1 ELSE 0 END, source"
    for row in ledger.select(f"NOT gone AND facts IS NOT NULL ORDER BY {order}"):
        ring = json.loads(row["facts"]).get("ring")
        if ring:
            yield Footprint(row["source"].rpartition("/")[2], row["state"], ring)
