"""What a command says on stderr, whoever reads it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

SAYING = """
import sys
from tilemapper.cli.streams import open_streams, outlive_readers_of_stderr
open_streams()
outlive_readers_of_stderr()
for number in range(3000):
    print(f"{number:99}", file=sys.stderr)
print("done")
"""


def test_a_slow_reader_of_a_stderr_that_does_not_block_gets_all() -> None:
    """Callers set their pipes so, Node for instance: the first full one ended the command."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen(
        [sys.executable, "-c", SAYING], stdout=subprocess.PIPE, stderr=writer
    ) as saying:
        os.close(writer)
        heard = os.read(reader, 1)
        time.sleep(0.5)  # the pipe is full by then
        while some := os.read(reader, 1 << 16):
            heard += some
        os.close(reader)
        said, _ = saying.communicate(timeout=60)
    assert (saying.returncode, said) == (0, b"done\n")
    assert heard.decode() == "".join(f"{number:99}\n" for number in range(3000))
