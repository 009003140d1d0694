from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import contextlib, resource
from tilemapper.training.memory import kept_memory

def faults(where):
    with where:
        bytearray(40 << 20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            bytearray(40 << 20)[::4096] = bytes(10240)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(contextlib.nullcontext()), faults(kept_memory()), faults(contextlib.nullcontext()))
"""


def test_freed_memory_is_used_again_inside_and_given_back_outside():
    """Faults are pages that the system hands out; in a child, since the setting is a process's."""
    command = [sys.executable, "-c", PROGRAM]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, inside, after = map(int, out.split())
    assert inside < 100
    assert before > 10 * inside and after > 10 * inside
