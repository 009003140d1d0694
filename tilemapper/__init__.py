"""Satellite rasters in, map rasters out.

``tilemapper.render``, ``tilemapper.open_model`` and their like are imported on first use, so that
``import tilemapper`` loads neither torch, dask nor rasterio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilemapper.networks.model import open_model as open_model
    from tilemapper.render.render import render as render

__version__ = "0.1.0"

# public name -> module that holds it
_DOORS = {
    "render": "tilemapper.render.render",
    "open_model": "tilemapper.networks.model",
}
__all__ = ["__version__", "open_model", "render"]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'tilemapper' has no attribute {name!r}")
    return getattr(importlib.import_module(_DOORS[name]), name)
