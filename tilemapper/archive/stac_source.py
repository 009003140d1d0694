"""STAC as a source: the raster of each item of an item, item collection, collection or catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from tilemapper.archive import remote
from tilemapper.archive.scene import day_of
from tilemapper.errors import JobError
from tilemapper.raster.secrets import public

RASTER_TYPES = ("image/tiff", "image/jp2", "image/jpeg", "image/png")
# In this order, when the job names no asset.
USUAL_KEYS = ("visual", "image", "data", "rgb", "analytic")
MAX_DOCUMENTS = 200_000


@dataclass(frozen=True, slots=True)
class Asset:
    """Where an item's raster is; its ISO date and its bounds in degrees, if the item has them."""

    href: str
    date: str | None
    bbox: tuple[float, float, float, float] | None


def assets(where: str, *, asset: str | None) -> Iterator[Asset]:
    """The raster of every item below a document; links are followed, each once.

    Raises:
        JobError: a document is missing or no STAC, or an item has no such asset.
    """
    waiting, seen = [where], {where}
    while waiting:
        place = waiting.pop()
        document = _read(place)
        items = document.get("features") if document.get("type") == "FeatureCollection" else None
        if document.get("type") == "Feature":
            items = [document]
        for item in items or ():
            yield _asset(item, place, asset)
        followed = ("next",) if items is not None else ("child", "item", "items")
        for link in document.get("links", ()):
            if items and document.get("type") == "Feature":
                break
            if link.get("rel") in followed and isinstance(link.get("href"), str):
                target = _resolved(place, link["href"])
                if target not in seen and len(seen) < MAX_DOCUMENTS:
                    seen.add(target)
                    waiting.append(target)


def _read(place: str) -> dict[str, Any]:
    try:
        data = remote.fetch(place) if remote.is_remote(place) else Path(place).read_bytes()
        document = json.loads(data)
    except OSError as error:
        raise JobError(f"{place}: cannot be read ({error.strerror}); check the catalog") from error
    except (ValueError, RecursionError) as error:
        raise JobError(f"{public(place)}: is no JSON ({error}); check the catalog") from error
    if not isinstance(document, dict) or document.get("type") not in (
        "Feature", "FeatureCollection", "Collection", "Catalog",
    ):  # fmt: skip
        raise JobError(f"{public(place)}: is no STAC item, collection or catalog; check the path")
    return document


def _asset(item: dict[str, Any], place: str, wanted: str | None) -> Asset:
    named = item.get("assets", {})
    name = f"{public(place)}: item {str(item.get('id'))[:80]!r}"
    if wanted is not None:
        chosen = named.get(wanted)
        if chosen is None:
            raise JobError(f"{name} has no asset {wanted!r}, there are: {', '.join(named)[:200]}")
    else:
        rasters = {
            key: value for key, value in named.items()
            if str(value.get("type", "")).startswith(RASTER_TYPES)
            and not {"thumbnail", "overview"} & set(value.get("roles", ()))
        }  # fmt: skip
        key = next((key for key in USUAL_KEYS if key in rasters), next(iter(rasters), None))
        if key is None:
            raise JobError(f"{name} has no raster asset; name one by source.asset")
        chosen = rasters[key]
    day = day_of(item.get("properties", {}).get("datetime"))
    bbox = item.get("bbox")
    return Asset(
        _resolved(place, str(chosen.get("href"))),
        None if day is None else day.isoformat(),
        _flat(bbox) if bbox else None,
    )


def _flat(bbox: list[float]) -> tuple[float, float, float, float]:
    """West, south, east, north of a box of two or three dimensions."""
    half = len(bbox) // 2
    return float(bbox[0]), float(bbox[1]), float(bbox[half]), float(bbox[half + 1])


def _resolved(place: str, href: str) -> str:
    """A link as an absolute path or URL; a server's document may name no local file."""
    if remote.is_remote(href):
        return href
    if remote.is_remote(place):
        # urljoin knows no s3://, so it is shown as https:// for the while.
        joined = urljoin(place.replace("s3://", "https://", 1), href)
        if not remote.is_remote(joined):
            raise JobError(f"{public(place)}: links to {href[:80]!r}, which is no address there")
        return joined.replace("https://", place.partition("://")[0] + "://", 1)
    return str((Path(place).parent / href.removeprefix("file://")).resolve())
