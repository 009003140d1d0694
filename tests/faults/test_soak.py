"""Small scenes under random faults in one process, for an hour: right maps, and nothing grows.

TILEMAPPER_SOAK_MINUTES sets how long; TILEMAPPER_SOAK_LOG keeps the samples.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.injection import built_shim
from tests.faults.server import ROOT, serving
from tests.faults.table import count

MINUTES = float(os.environ.get("TILEMAPPER_SOAK_MINUTES", "60"))
# Allocators keep some of what is freed; more than this from an early to a late hour is a leak.
GROWTH_MIB = 24.0


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_an_hour_of_faults_ends_with_as_much_as_it_began(tmp_path, models):
    shim = built_shim(tmp_path)
    folder = tmp_path / "soak"
    folder.mkdir()
    environment = {
        **os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1",
        "GDAL_HTTP_RETRY_DELAY": "0.05",
    }  # fmt: skip
    with serving(folder / "sources") as url:
        command = [sys.executable, "-m", "tests.faults.soak", str(folder), "--server", url]
        command += ["--models", str(models), "--minutes", str(MINUTES)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    if "TILEMAPPER_SOAK_LOG" in os.environ:
        Path(os.environ["TILEMAPPER_SOAK_LOG"]).write_text(done.stdout)
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    last = samples[-1] if samples else {}
    count(
        "soak", last.get("rounds", 0), int(done.returncode != 0),
        f"{last.get('seconds', 0) / 60:.0f} minutes, {last.get('calls failed', 0)} calls failed, "
        f"{last.get('checked', 0)} maps checked; RSS {early(samples, 'rss_mib'):.0f} to "
        f"{late(samples, 'rss_mib'):.0f} MiB",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert late(samples, "rss_mib") - early(samples, "rss_mib") < GROWTH_MIB
    for name in ("descriptors", "threads", "children", "temporary", "work"):
        # A sample may catch a file that is open for a moment.
        assert late(samples, name) <= early(samples, name) + 1, name


def early(samples: list[dict[str, float]], name: str) -> float:
    """The median of the second tenth of a run: the first is for caches to fill."""
    tenth = max(1, len(samples) // 10)
    return statistics.median(s[name] for s in samples[tenth : 2 * tenth] or samples or [{name: 0}])


def late(samples: list[dict[str, float]], name: str) -> float:
    """The median of the last tenth."""
    tenth = max(1, len(samples) // 10)
    return statistics.median(s[name] for s in samples[-tenth:] or [{name: 0}])
