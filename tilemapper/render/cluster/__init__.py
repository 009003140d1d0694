"""Renders on the workers of a dask cluster: one of our own on this machine, or a running one.

The only place of dask. Who renders what is decided in `tilemapper.render.spread`, what a worker
does is in `tilemapper.render.desk`; here both are given a cluster.
"""

from tilemapper.render.cluster.blocks import spread_blocks
from tilemapper.render.cluster.surveying import Survey, cluster_speed, survey

__all__ = ["Survey", "cluster_speed", "spread_blocks", "survey"]
