"""What may be written, and what must make way."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tilemapper.errors import DiskFullError, RasterError, TargetError
from tilemapper.raster.atomic import check_name, check_regular
from tilemapper.raster.identity import files_behind
from tilemapper.raster.lattice import Block
from tilemapper.raster.opening import open_raster
from tilemapper.raster.secrets import public
from tilemapper.render.plan import Plan
from tilemapper.render.staging import FINISHED, staging_folder, stored_plan

# A URL, of whose slashes pathlib keeps one, or a path of GDAL's own.
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+:/|/vsi[a-z0-9_]+/", re.IGNORECASE)


def check_target(source: str, target: Path, *, overwrite: bool) -> None:
    """Refuses a target that cannot or may not be written, before any work is done.

    Raises:
        TargetError: it is the source, a folder or device, exists, is not local, or its folder is
            missing.
    """
    check_name(target)
    if target.is_dir():
        raise TargetError(f"{target}: is a folder; name a file in it")
    if not target.parent.is_dir():
        if _REMOTE.match(str(target)):
            address = public(re.sub(r"^([^/]+:)/", r"\1//", str(target)))
            raise TargetError(
                f"{address}: the output must be a local path; write it there and copy it"
            )
        raise TargetError(f"{target.parent}: no such folder; make it, or choose another output")
    check_regular(target)
    same = os.path.realpath(source) == os.path.realpath(target)  # not resolve: links may loop
    if same or (target.exists() and Path(source).exists() and target.samefile(source)):
        raise TargetError(f"{target}: is the source itself; choose another output")
    if os.path.lexists(target) and not overwrite:  # a link too that leads nowhere just now
        raise TargetError(f"{target}: exists already; give --overwrite to replace it")


def check_targets(plan: Plan, *, overwrite: bool) -> None:
    """`check_target` of every layer; those that this plan has put in place may be replaced.

    Raises:
        TargetError: as `check_target`, or the source has its pixels or mask in one of them.
    """
    source = plan.source
    for layer in plan.layers:
        path = Path(layer.target)
        check_target(source.path, path, overwrite=overwrite or is_finished(path, plan))
        if path.exists() and any(map(path.samefile, files_behind(source))):
            raise TargetError(f"{path}: {source.path} is made of it; choose another output")


def is_finished(path: Path, plan: Plan) -> bool:
    """Whether a killed run of this plan had already put this output in place.

    Its staging folder was left behind then, and the same command must go on, not be refused.
    """
    stored = stored_plan(Path(plan.layers[0].target))
    if stored is None or stored.get("fingerprint") != plan.fingerprint or not path.exists():
        return False
    try:
        with open_raster(str(path)) as dst:
            tag = json.loads(dst.tags().get("TILEMAPPER_PLAN", "{}"))
    except (RasterError, ValueError):
        return False
    return bool(tag.get("fingerprint") == plan.fingerprint)


def all_finished(plan: Plan) -> bool:
    """Whether a killed run of this plan had put all its outputs in place.

    It has left a note then. That outputs of this plan lie there says less: they may be older, and
    damaged, and about to be replaced.
    """
    noted = staging_folder(Path(plan.layers[0].target)) / FINISHED
    return noted.exists() and all(is_finished(Path(layer.target), plan) for layer in plan.layers)


def check_disk(plan: Plan, target: Path, pending: Sequence[Block]) -> None:
    """Refuses what cannot fit even if the map compresses as well as flat colours do.

    Half of it is for the output, half for blocks, of which only those that are pending count.
    """
    free = shutil.disk_usage(target.parent).free
    pixels = plan.source.height * plan.source.width
    share = sum(block.height * block.width for block in pending) / pixels
    needed = plan.disk_bytes() * (1 + share) / 80
    if needed > free:
        raise DiskFullError(
            f"{target}: needs {needed / 1e9:.1f} GB or more, {free / 1e9:.1f} GB are free; free "
            "some space, or limit the work with --bounds"
        )


def remove_stale_sidecars(target: Path) -> None:
    """Removes what lay beside a replaced target: its mask or overviews would hide the new ones.

    Raises:
        TargetError: one of them cannot be removed.
    """
    for suffix in (".aux.xml", ".msk", ".ovr"):
        path = target.with_name(target.name + suffix)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise TargetError(
                f"{path}: belongs to the map that was replaced and cannot be removed "
                f"({error.strerror}); remove it, the new map stands"
            ) from error
