"""Servers that do not answer during a run: their scenes are left for later, and blamed of nothing.

One scene may be all that a server cannot give, night after night; so the others are asked for too.
After a few that it could not give in a row they are left alone until the next round, since each
costs half a minute, and an archive may have thousands.
"""

from __future__ import annotations

from collections import Counter

from tilemapper.archive import remote
from tilemapper.archive.scene import Scene

IN_A_ROW = 3


class Servers:
    """What is known in a run of the servers on which its scenes lie.

    Attributes:
        lines: what kept each scene that could not be had, by its id.
    """

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}
        self._silent: Counter[str] = Counter()  # scenes in a row, by server

    def silent(self, scene: Scene, line: str) -> None:
        """Notes that a scene could not be had."""
        self.lines[scene.id] = line
        if (server := remote.server_of(scene.path)) is not None:
            self._silent[server] += 1

    def answered(self, scene: Scene) -> None:
        """Notes that a scene could be had, whatever became of it."""
        self.lines.pop(scene.id, None)
        self._silent.pop(remote.server_of(scene.path) or "", None)

    def is_away(self, scene: Scene) -> bool:
        """Whether a scene's server could not give so many in a row that it is left alone."""
        return self._silent[remote.server_of(scene.path) or ""] >= IN_A_ROW

    def try_again(self) -> None:
        """Has all servers asked once more; one that still is silent is left alone at once."""
        for server, scenes in self._silent.items():
            self._silent[server] = min(scenes, IN_A_ROW - 1)
