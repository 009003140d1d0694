"""STAC as a source: the raster of each item of an item, item collection, collection or catalog."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

from tilemapper.archive import remote
from tilemapper.archive.scene import day_of
from tilemapper.errors import JobError, TryAgainError
from tilemapper.paths import real_path
from tilemapper.raster.secrets import public

RASTER_TYPES = ("image/tiff", "image/jp2", "image/jpeg", "image/png")
# In this order, when the job names no asset.
USUAL_KEYS = ("visual", "image", "data", "rgb", "analytic")
MAX_DOCUMENTS = 200_000


@dataclass(frozen=True, slots=True)
class Asset:
    """Where an item's raster is; its ISO date and its bounds in degrees, if the item has them.

    item: the item's id. fault: why it has no raster to be rendered; ``href`` is its document then.
    passes: the fault is that of the document's server, which says nothing for now.
    """

    item: str
    href: str
    date: str | None
    bbox: tuple[float, float, float, float] | None
    fault: str | None = None
    passes: bool = False


@dataclass(frozen=True, slots=True)
class _Link:
    """Where a document is. is_item: another one says of it that it is an item."""

    place: str
    is_item: bool = False


class _NoRasterError(JobError):
    """An item as STAC has it, without the asset that is wanted."""


def assets(where: str, *, asset: str | None) -> Iterator[Asset]:
    """The raster of every item below a document; links are followed, each once.

    An item whose document cannot be had is a fault of its own, and stops no other.

    Raises:
        JobError: a document is no STAC, one that leads to items is missing, or there are more than
            200,000 documents.
        TryAgainError: a server does not answer.
    """
    waiting, seen, silent = [_Link(where)], {where}, 0
    with ThreadPoolExecutor(remote.ASKED_AT_ONCE) as pool:
        while waiting:
            wave, waiting = waiting[: remote.ASKED_AT_ONCE], waiting[remote.ASKED_AT_ONCE :]
            for link, document in zip(wave, pool.map(_read_link, wave), strict=True):
                if isinstance(document, Asset):
                    silent = silent + 1 if document.passes else 0
                    if silent == remote.ASKED_AT_ONCE:
                        raise TryAgainError(str(document.fault))
                    yield document
                    continue
                silent = 0
                yield from _below(document, link.place, asset)
                for follow in _followed(document, link.place):
                    if follow.place in seen:
                        continue
                    if len(seen) == MAX_DOCUMENTS:
                        raise JobError(
                            f"{public(where)}: has more than {MAX_DOCUMENTS} documents; name "
                            "parts of it in source.scenes"
                        )
                    seen.add(follow.place)
                    waiting.append(follow)


def _below(document: dict[str, Any], place: str, asset: str | None) -> Iterator[Asset]:
    """The rasters of the items that a document is, or has in itself."""
    if document["type"] == "Feature":
        yield _asset(document, place, asset)
    if document["type"] == "FeatureCollection":
        for item in _listed(document, "features", place):
            yield _asset(item, place, asset)


def _followed(document: dict[str, Any], place: str) -> Iterator[_Link]:
    kind = document["type"]
    if kind == "Feature":
        return
    followed = ("next",) if kind == "FeatureCollection" else ("child", "item", "items")
    for link in _listed(document, "links", place):
        if link.get("rel") in followed and isinstance(link.get("href"), str):
            yield _Link(_resolved(place, link["href"]), is_item=link["rel"] == "item")


def _read_link(link: _Link) -> dict[str, Any] | Asset:
    """What a link leads to; of an item that cannot be had, its fault."""
    try:
        return _read(link.place)
    except (JobError, TryAgainError) as error:
        if not link.is_item:
            raise
        passes = isinstance(error, TryAgainError)
        return Asset("", public(link.place), None, None, str(error), passes)


def _listed(document: dict[str, Any], key: str, place: str) -> list[dict[str, Any]]:
    """Objects that a document lists under a key; none where the key is missing or null."""
    found = document.get(key) or []
    if isinstance(found, list) and all(isinstance(value, dict) for value in found):
        return found
    raise JobError(f"{public(place)}: {key} is no list of objects, as STAC has it; correct it")


def _read(place: str) -> dict[str, Any]:
    try:
        data = remote.fetch(place) if remote.is_remote(place) else Path(place).read_bytes()
    except JobError:
        raise
    except (OSError, ValueError) as error:  # the latter of a link with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise JobError(f"{place}: cannot be read ({reason}); check the catalog") from error
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise JobError(f"{public(place)}: is no JSON ({error}); check the catalog") from error
    if not isinstance(document, dict) or document.get("type") not in (
        "Feature", "FeatureCollection", "Collection", "Catalog",
    ):  # fmt: skip
        raise JobError(f"{public(place)}: is no STAC item, collection or catalog; check the path")
    return document


def _asset(item: dict[str, Any], place: str, wanted: str | None) -> Asset:
    """The raster of an item; an item that has none is a fault of its own, and stops no other."""
    name = f"{public(place)}: item {str(item.get('id'))[:80]!r}"
    day = day_of(_table(item, "properties", name).get("datetime"))
    bbox, fault = _flat(item, name), None
    try:
        href = _resolved(place, _href(item, name, wanted))
    except _NoRasterError as error:
        href, fault = public(place), str(error)
    return Asset(
        str(item.get("id") or ""), href, None if day is None else day.isoformat(), bbox, fault
    )


def _href(item: dict[str, Any], name: str, wanted: str | None) -> str:
    named = _table(item, "assets", name)
    if wanted is not None:
        chosen = named.get(wanted)
        if chosen is None:
            raise _NoRasterError(f"{name} has no asset {wanted!r}, there are: {list(named)!s:.200}")
    else:
        rasters = {key: value for key, value in named.items() if _is_raster(value)}
        key = next((key for key in USUAL_KEYS if key in rasters), next(iter(rasters), None))
        if key is None:
            raise _NoRasterError(f"{name} has no raster asset; name one by source.asset")
        chosen = rasters[key]
    href = chosen.get("href") if isinstance(chosen, dict) else None
    if not isinstance(href, str):
        raise JobError(f"{name} says of its asset no href, which is needed; correct the catalog")
    return href


def _table(item: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """An object of an item; an empty one where the key is missing or null."""
    found = item.get(key) or {}
    if not isinstance(found, dict):
        raise JobError(f"{name}: {key} is no object, as STAC has it; correct the catalog")
    return found


def _is_raster(asset: object) -> bool:
    if not isinstance(asset, dict):
        return False
    roles = asset.get("roles")
    aside = isinstance(roles, list) and ("thumbnail" in roles or "overview" in roles)
    return str(asset.get("type", "")).startswith(RASTER_TYPES) and not aside


def _flat(item: dict[str, Any], name: str) -> tuple[float, float, float, float] | None:
    """West, south, east, north of an item's box of two or three dimensions; None without one."""
    bbox = item.get("bbox")
    if not bbox:
        return None
    try:
        sides = [float(value) for value in bbox]
    except (TypeError, ValueError):
        sides = []
    if len(sides) not in (4, 6) or not all(map(math.isfinite, sides)):
        raise JobError(
            f"{name}: bbox {str(bbox)[:80]} found, needed are four or six numbers; correct the "
            "catalog"
        )
    half = len(sides) // 2
    return sides[0], sides[1], sides[half], sides[half + 1]


def _resolved(place: str, href: str) -> str:
    """A link as an absolute path or URL; a server's document may name no local file."""
    if remote.is_remote(href):
        return href
    if remote.is_remote(place):
        try:
            # It knows no s3://, so that is shown as https:// for the while.
            joined = urljoin(place.replace("s3://", "https://", 1), href)
        except ValueError:  # such as a bracket that is left open
            joined = ""
        if not remote.is_remote(joined):
            raise JobError(f"{public(place)}: links to {href[:80]!r}, which is no address there")
        return joined.replace("https://", place.partition("://")[0] + "://", 1)
    path = unquote(href.removeprefix("file://")) if href.startswith("file://") else href
    there = Path(place).parent / path
    try:
        return str(real_path(there))
    except ValueError:  # such as a zero byte, of which the scene's fault tells
        return str(there)
