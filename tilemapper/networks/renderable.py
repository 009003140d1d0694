"""Which models can paint a raster: training may make others, to be shown and exported."""

from __future__ import annotations

from tilemapper.errors import ModelError
from tilemapper.networks.card import ModelCard

# What rasters are presented with; and what every tile's start is a multiple of: see the lattice,
# which this package may not import.
BANDS = 3
PHASE = 32


def check_renders(card: ModelCard) -> None:
    """Refuses a model that no raster can be rendered with, before anything is written for it.

    That a tile has room for the overlap is checked where the overlap is known.

    Raises:
        ModelError: it takes other bands than red, green and blue, or its tiles cannot all meet
            the network in one phase.
    """
    check_bands(card.bands, name=card.name)
    if card.tile % PHASE:
        raise ModelError(
            f"{card.name}: its tiles are {card.tile} px, a multiple of {PHASE} is needed, since "
            f"they lie in steps of {PHASE}; use or train a model with such tiles"
        )


def check_bands(bands: int, *, name: str) -> None:
    """Refuses a generator that takes other bands than red, green and blue, with a ModelError."""
    if bands != BANDS:
        raise ModelError(
            f"{name}: the generator takes {bands} band(s), {BANDS} are needed: red, green, blue; "
            "use one that was trained on RGB imagery"
        )
