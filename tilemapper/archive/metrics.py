"""OpenMetrics text of a run, for a monitoring system that reads files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


def openmetrics(job: str, counts: Mapping[str, int], summary: Mapping[str, Any]) -> str:
    """The text of a metrics file.

    counts: scenes of the whole ledger by state. summary: `RunSummary.to_json` of the last run.
    """
    label = job.replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        "# HELP tilemapper_scenes Scenes of the archive by state.",
        "# TYPE tilemapper_scenes gauge",
    ]
    lines += [
        f'tilemapper_scenes{{job="{label}",state="{state}"}} {count}'
        for state, count in counts.items()
    ]
    figures = {
        "scenes_done": (summary["done"], "Scenes that the last run rendered."),
        "scenes_failed": (summary["failed"], "Scenes known to fail at the last run."),
        "scenes_left": (summary["left"], "Scenes that the last run left for a later one."),
        "pixels": (summary["pixels"], "Pixels that the last run rendered."),
        "tiles": (summary["tiles"], "Tiles that the last run rendered."),
        "seconds": (summary["seconds"], "Wall time of the last run."),
        "exit_code": (summary["exit_code"], "0 all done, 3 some failed, 75 some left."),
        "end_timestamp_seconds": (round(time.time(), 3), "When the last run ended."),
    }
    for name, (value, words) in figures.items():
        metric = f"tilemapper_last_run_{name}"
        lines += [f"# HELP {metric} {words}", f"# TYPE {metric} gauge"]
        lines += [f'{metric}{{job="{label}"}} {value}']
    return "\n".join([*lines, "# EOF", ""])
