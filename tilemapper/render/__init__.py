"""From a raster to its map: plan, blocks, engine, staging, finish.

The package itself can be called: ``tilemapper.render(source, target, model=...)`` is
`tilemapper.render.render.render`, under the name that the command has too.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Door(types.ModuleType):
    """A package that can be called like the function it is named after."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from tilemapper.render.render import render

        return render(*args, **options)


sys.modules[__name__].__class__ = _Door
