"""The ``tilemapper`` command, also as ``python -m tilemapper``."""

from __future__ import annotations

import sys
from typing import NoReturn

from tilemapper.cli.signals import farewell, listen, received
from tilemapper.errors import Interrupted


def main() -> NoReturn:
    """Entry point of the console script; listens to signals before it loads anything else."""
    listen()
    try:
        from tilemapper.cli.main import main as command

        command()
    except Interrupted:
        sys.exit(farewell(received()))


if __name__ == "__main__":
    main()
