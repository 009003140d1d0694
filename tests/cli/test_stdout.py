"""What a command says when nobody can take what it prints."""

import errno
import io
import os
import sys

from tilemapper.cli.main import cli, run


class FullDisk(io.StringIO):
    """A stream into a file on a disk that is full."""

    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_behind_stdout_is_one_line_and_for_later(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", FullDisk())
    assert run(cli, ["--help"]) == 75
    monkeypatch.undo()
    error = capsys.readouterr().err
    assert error.startswith("error: stdout or temporary files: No space left on device; ")
    assert error.count("\n") == 1
