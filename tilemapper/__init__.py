"""Satellite rasters in, map rasters out.

``tilemapper.render``, ``tilemapper.open_model`` and their like are imported on first use, so that
``import tilemapper`` loads neither torch, dask nor rasterio.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> where it is; a package that can be called stands for itself
_DOORS = {
    "render": ("tilemapper.render", None),
    "train": ("tilemapper.api.train", "train"),
    "stream": ("tilemapper.render.stream", "stream"),
    "to_dask": ("tilemapper.render.lazy", "to_dask"),
    "to_xarray": ("tilemapper.render.lazy", "to_xarray"),
    "compare": ("tilemapper.api.compare", "compare"),
    "evaluate": ("tilemapper.api.evaluate", "evaluate"),
    "doctor": ("tilemapper.api.doctor", "doctor"),
    "open_model": ("tilemapper.networks.model", "open_model"),
}
__all__ = ["__version__", *sorted(_DOORS)]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'tilemapper' has no attribute {name!r}")
    module_name, attribute = _DOORS[name]
    module = importlib.import_module(module_name)
    return getattr(module, attribute) if attribute else module
