"""Scenes over the workers of a cluster; the cluster itself is `tilemapper.render.cluster`'s."""

from __future__ import annotations

from tilemapper.archive.run import Spread
from tilemapper.errors import OptionError


def over_cluster(scheduler: str | None, workers: int | None) -> Spread:
    """A spread over a running cluster, or over a local one of so many workers.

    Raises:
        OptionError: there is no way to spread scenes.
    """
    raise OptionError(
        f"--scheduler {scheduler} --workers {workers}: scenes are not spread over workers by this "
        "version; use --shard I/N"
    )
