"""Freed memory: kept while a run needs it again, given back after."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

# Faults are pages that the system hands out, in rounds of three: of 16 MiB, which rendering keeps,
# of 40, which it gives back, and of 4, which any process comes to keep.
PROGRAM = """
import contextlib, resource
from tilemapper.memory import keep_freed_memory, kept_memory

def faults(where, mib):
    with where:
        bytearray(mib << 20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            bytearray(mib << 20)[::4096] = bytes(mib << 8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

nothing = contextlib.nullcontext()
print(faults(nothing, 40), faults(kept_memory(), 40), faults(nothing, 40), faults(nothing, 4))
if keep_freed_memory():
    print(faults(nothing, 16), faults(nothing, 40), faults(kept_memory(), 40), faults(nothing, 16),
          faults(nothing, 40))
"""


def test_freed_memory_is_used_again_inside_and_given_back_outside():
    """In a child, since the setting is a process's; what the command set comes back after."""
    command = [sys.executable, "-c", PROGRAM]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    plain, rendering = (list(map(int, line.split())) for line in out.splitlines())
    before, inside, after, small_after = plain
    assert max(inside, small_after) < 100  # arrays of a few MiB are used again after it, too
    assert before > 10 * inside and after > 10 * inside
    small, large, training, small_again, large_again = rendering
    assert max(small, training, small_again) < 100
    assert min(large, large_again) > 1000
