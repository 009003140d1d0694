"""What ``{relpath}`` is of scenes that no folder was searched for: lists and catalogs name them."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence

from tilemapper.raster.secrets import public


def below_shared(paths: Sequence[str]) -> list[str]:
    """Each path or address below the deepest folder that all of them share, with its suffix."""
    found = [_parts(path) for path in paths]
    shared = len(os.path.commonprefix([parts[:-1] for parts in found]))  # noqa: RUF071  of lists
    return ["/".join(parts[shared:]) for parts in found]


def of_item(name: str, stem: str) -> str:
    """An item's id as a folder, and the stem of its raster; the stem alone if the two agree."""
    folder = re.sub(r"[^\w.+@=-]+", "-", name).strip(".-")
    return stem if folder in ("", stem) else f"{folder}/{stem}"


def _parts(path: str) -> list[str]:
    """Folders and name, of an address without what is secret in it, and without its scheme."""
    plain = public(path)
    rooted = "/" + (plain.partition("://")[2] or plain)  # so that no .. is left at its beginning
    return posixpath.normpath(rooted).lstrip("/").split("/")
