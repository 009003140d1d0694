"""Between a run and its workers: tasks made of scenes, and outputs made of what comes back."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilemapper.archive import publishing, remote, storing
from tilemapper.archive.decisions import Decision
from tilemapper.archive.job import ArchiveJob
from tilemapper.archive.ledger import Ledger
from tilemapper.archive.mosaic_vrt import write_vrt
from tilemapper.archive.scene import Scene
from tilemapper.archive.staging import Staging
from tilemapper.archive.task import SceneOutcome, SceneTask
from tilemapper.errors import TargetError, TilemapperError, TryAgainError
from tilemapper.networks.model import Model
from tilemapper.raster.secrets import redacted


@dataclass(frozen=True)
class Handover:
    """What one run hands to workers and takes back. run: its name in the ledger."""

    job: ArchiveJob
    model: Model
    ledger: Ledger
    staging: Staging
    recipe: str
    run: str

    def task(self, decision: Decision, options: dict[str, Any], until_s: float | None) -> SceneTask:
        """The task of a scene that this run has claimed.

        Raises:
            TargetError: an output exists that no run of the job made.
            DiskFullError: no room is left for what is staged.
        """
        scene = decision.scene
        publishing.check_free(
            decision.outputs,
            made=self.ledger.made(scene.id),
            overwrite=self.job.output.overwrite,
        )
        staged = self.staging.path(scene, self.recipe)
        self.staging.drop_others(scene, staged)
        options = dict(options)
        if scene.mosaic is not None:
            publishing.prepare(scene.path)
            write_vrt(Path(scene.path), scene.mosaic)
            # Its members were opened one by one, by first bytes and header, when it was made.
            options["allow_drivers"] = (*options["allow_drivers"], "VRT")
        return SceneTask(
            id=scene.id,
            path=scene.path,
            staged=str(staged),
            model=str(self.model.folder),
            model_sha256=self.model.card.digest,
            options=options,
            layers=self.staging.layers(staged, self.job.render.layers()),
            bounds=self.job.source.bounds,
            min_px=self.job.source.min_px,
            part=scene.part,
            until_s=until_s,
            stall_s=60 * self.job.run.stall_minutes,
        )

    def publish(self, decision: Decision, outcome: SceneOutcome) -> SceneOutcome:
        """The outcome, done once all outputs stand; otherwise what kept it from that."""
        scene = decision.scene
        files = list(zip(outcome.files.values(), decision.outputs, strict=True))
        sha256 = " ".join(file.sha256 for file, _ in files)

        def put() -> str:
            # The map comes last: where it stands, its layers stand too.
            stamps = [
                publishing.put(file.path, output, file.sha256) for file, output in files[::-1]
            ]
            return " ".join(stamps[::-1])

        try:
            _check_seen([file.path for file, _ in files])
            for file, output in files:
                publishing.prepare(output)
                if remote.is_remote(output):
                    storing.upload(file.path, output, file.sha256)
            facts = self._facts(scene, decision, outcome)
            own = self.ledger.announce(scene.id, self.run, sha256=sha256, facts=facts)
            own = own and self.ledger.publish(scene.id, self.run, put)
        except TryAgainError as error:
            return SceneOutcome(scene.id, "later", redacted(str(error)), stop=True)
        except TilemapperError as error:
            return SceneOutcome(scene.id, "failed", redacted(" ".join(str(error).split())))
        if not own:
            # What is staged is left: the other stages under the same name.
            return SceneOutcome(scene.id, "later", f"{scene.name}: another run took it over")
        for file, _ in files:
            with contextlib.suppress(OSError):
                file.path.unlink(missing_ok=True)  # of a remote output
        return outcome

    def _facts(self, scene: Scene, decision: Decision, outcome: SceneOutcome) -> dict[str, Any]:
        """Columns of the scene's row in the ledger."""
        files = zip(outcome.files.items(), decision.outputs, strict=True)
        named = {
            name: {"output": output, "sha256": file.sha256, "bytes": file.size_bytes}
            for (name, file), output in files
        }
        facts = outcome.facts | {
            "date": scene.date,
            "model_sha256": self.model.card.digest,
            "bytes": named["map"]["bytes"],
            "layers": {name: values for name, values in named.items() if name != "map"},
        }
        return {
            "head_sha256": outcome.head_sha256,
            "recipe": self.recipe,
            "seconds": outcome.seconds,
            "pixels": outcome.pixels,
            "tiles": outcome.tiles,
            "output_bytes": sum(file.size_bytes for file in outcome.files.values()),
            "facts": json.dumps(facts),
        }


def _check_seen(paths: list[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise TargetError(
                f"{path}: is not to be seen here; scenes that other machines render need "
                "output.work on a file system that they share"
            )
