"""Packages that only some commands need: the extras of ``pip install 'tilemapper[…]'``."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

from tilemapper.errors import OptionError

_CALLED = {"PIL": "Pillow"}


@contextlib.contextmanager
def of_extra(name: str) -> Iterator[None]:
    """Names the extra that a package comes with which is imported here, and is not there.

    Raises:
        OptionError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing(name, (error.name or "a package").partition(".")[0]) from error


def check_extra(name: str, *packages: str) -> None:
    """Refuses to begin what would need a package hours later.

    Raises:
        OptionError: one of the packages is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _missing(name, package)


def _missing(name: str, package: str) -> OptionError:
    return OptionError(
        f"{_CALLED.get(package, package)} is not installed; pip install 'tilemapper[{name}]', or "
        f"'.[{name}]' in a clone"
    )
