"""What the benchmarks replace inside the package is there under the names that they use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "benchmarks"
PATCHED = """
import stages, safety
with stages.measured(), safety.unguarded():
    pass
"""


def test_the_benchmarks_find_what_they_measure_and_what_they_switch_off():
    """A function that had moved ended them before the first figure."""
    ended = subprocess.run([sys.executable, "-c", PATCHED], cwd=FOLDER, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
