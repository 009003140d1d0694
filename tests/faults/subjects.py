"""What may come of `batch`, `train` and `pairs cut` under a fault: each told by its own oracle.

A subject starts from a clean folder, says what is wrong with a disturbed run, and brings it to
its end with the command that the program's own words name.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.archive.world import write_job
from tests.faults.injection import Driver, Ended
from tests.faults.oracle import (
    UNFORESEEN,
    check_map,
    holes,
    painted,
    remove_tree,
    sha256,
    write_source,
)
from tests.training.images import load_all
from tests.training.synthetic_pairs import TINY, write_pairs
from tilemapper.archive.jobfile import load_job
from tilemapper.errors import PairError
from tilemapper.networks.model import open_model
from tilemapper.training.checkpoint import read_checkpoint
from tilemapper.training.pairs import open_pairs

# What these commands load on their way, loaded once; the last ones are loaded by others late.
MODULES = (
    "tilemapper.cli.main",
    "tilemapper.cli.batch",
    "tilemapper.cli.train",
    "tilemapper.cli.pairs",
    "tilemapper.archive.run",
    "tilemapper.archive.jobfile",
    "tilemapper.archive.leaving",
    "tilemapper.archive.stac",
    "tilemapper.training.run",
    "tilemapper.training.cutting",
    "tilemapper.api.run_page",
    "tilemapper.networks.build",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "PIL.PngImagePlugin",
    "PIL.TiffImagePlugin",
    "tqdm",
    "rasterio.shutil",
    "rasterio.vrt",
)
# Words of a line that tells how a command ended without a result.
ENDINGS = ("error: ", "interrupted by signal ", "stopped early: ")


def said_wrong(ended: Ended) -> list[str]:
    """What is wrong with the words of a run that failed, or was told to stop."""
    said = []
    lines = ended.err.splitlines()
    if len(lines) != 1 or not lines[0].startswith(ENDINGS):
        said.append(f"not one line that begins with one of {ENDINGS}: {ended.err!r}")
    if any(words in ended.err for words in UNFORESEEN):
        said.append(f"an error that was not foreseen: {ended.err!r}")
    return said


@dataclass
class Subject:
    """One command that writes into ``folder`` and nowhere else."""

    place: Path
    folder: Path = field(init=False)
    arguments: list[str] = field(init=False)
    seconds: float = field(init=False, default=0.0)  # of an undisturbed run

    def __post_init__(self) -> None:
        self.folder = self.place / "out"

    def reset(self) -> None:
        """An empty folder to start from."""
        remove_tree(self.folder)
        self.folder.mkdir()

    def learn(self, driver: Driver) -> None:
        """Runs undisturbed and remembers what is right."""
        self.reset()
        ended = driver.run(self.arguments)
        assert (ended.code, ended.err) == (0, ""), ended
        self.seconds = ended.seconds
        self.remember()

    def remember(self) -> None:
        """Takes what stands in the folder for what is right, checking it."""
        raise NotImplementedError

    def whole(self) -> list[str]:
        """What is missing or wrong of a finished result."""
        raise NotImplementedError

    def standing(self) -> list[str]:
        """What is wrong with what stands there after a run that did not finish."""
        raise NotImplementedError

    def again(self, ended: Ended) -> list[str]:
        """The command that the contract names for going on."""
        return self.arguments

    def complaints(self, ended: Ended, *codes: int) -> list[str]:
        """What is wrong with a disturbed run; empty when all is as it must be."""
        said = ["hangs"] if ended.late else []
        if ended.code not in codes:
            said.append(f"exit code {ended.code}, not {codes}: {ended.err!r}")
        if ended.code == 0:
            said += self.whole()
            said += [f"exit 0, but says {ended.err!r}"] if ended.err else []
        elif ended.code > 0:
            said += said_wrong(ended)
        return said + self.standing()

    def go_on(self, driver: Driver, ended: Ended) -> list[str]:
        """Goes on undisturbed; says what is wrong with the end."""
        last = driver.run(self.again(ended))
        if last.code != 0 or last.err:
            return [f"going on ends with {last.code}: {last.err!r}"]
        return [f"after going on: {line}" for line in self.whole() + self.litter()]

    def is_over(self) -> bool:
        """Whether a killed run had done all, and the same command is refused from now on."""
        return False

    def litter(self) -> list[str]:
        """Temporary files that a finished run leaves."""
        return [f"left behind: {p}" for p in self.folder.rglob("*") if ".tmp" in p.name]


@dataclass
class Archive(Subject):
    """`tilemapper batch` over four scenes, one of them of two blocks, one masked."""

    model: Path = Path()
    sizes: tuple[tuple[int, int, bool], ...] = (
        (40, 60, False), (64, 64, True), (300, 560, False), (33, 257, False),
    )  # fmt: skip
    retries: int = 0
    expected: dict[str, str | None] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)  # what the ledger said before

    def __post_init__(self) -> None:
        super().__post_init__()
        (self.place / "in").mkdir(parents=True)
        for index, (height, width, masked) in enumerate(self.sizes):
            write_source(self.place / "in" / f"city_{index}.tif", height, width, masked=masked)
        job = write_job(
            self.place, self.model, retries=self.retries,
            render='batch_size = 1\nblock = 512\ngsd = "native"',
        )  # fmt: skip
        self.job = load_job(job)
        self.arguments = ["batch", str(job), "-q", "--json"]

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.job.work / "ledger.sqlite"

    def outputs(self) -> dict[str, str | None]:
        """Digests of the maps that stand, by name."""
        return {path.name: sha256(path) for path in sorted(self.job.root.glob("*_map.tif"))}

    def remember(self) -> None:
        for index, (height, width, masked) in enumerate(self.sizes):
            path = self.job.root / f"city_{index}_map.tif"
            check_map(path, painted(height, width), holes(height, width) if masked else None)
        self.expected = self.outputs()

    def whole(self) -> list[str]:
        said = []
        if self.outputs() != self.expected:
            said.append(f"maps that stand: {sorted(self.outputs())}, or one of them is wrong")
        done = self.states()
        if set(done.values()) != {"done"} or len(done) != len(self.sizes):
            said.append(f"the ledger says {done}")
        for name in ("report.html", "footprints.geojson"):
            if not (self.job.root / name).exists():
                said.append(f"{name} is missing")
        return said

    def rows(self) -> list[tuple[Any, ...]]:
        """name, state, ended_s of all scenes, read after a check of the file."""
        if not self.ledger.exists():
            return []
        database = sqlite3.connect(self.ledger)
        try:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return database.execute("SELECT output, state, ended_s FROM scenes").fetchall()
        except sqlite3.OperationalError as error:
            # Killed before its tables were made.
            assert "no such table" in str(error), error
            return []
        finally:
            database.close()

    def states(self) -> dict[str, str]:
        """State by the output's name."""
        return {Path(output).name: state for output, state, _ in self.rows()}

    def standing(self) -> list[str]:
        said, self.done = [], {}
        try:
            rows = self.rows()
        except (sqlite3.Error, AssertionError) as error:
            return [f"the ledger cannot be read: {error}"]
        stand = self.outputs()
        said += [f"{name}: wrong" for name, sha in stand.items() if self.expected[name] != sha]
        for output, state, ended_s in rows:
            if state == "done":
                self.done[output] = ended_s
                if Path(output).name not in stand:
                    said.append(f"{output}: done in the ledger, and not there")
        return said

    def complaints(self, ended: Ended, *codes: int) -> list[str]:
        if ended.code not in (3, 75) or not ended.out.endswith("}\n"):
            return super().complaints(ended, *codes)
        # It went on to its end: what failed, or stopped it, is told in the last line on stdout.
        last = json.loads(ended.out.splitlines()[-1]).get("summary", {})
        words = [one["error"] for one in last.get("failures", ())] + [last.get("stopped") or ""]
        said = [] if any(words) else super().complaints(ended, *codes)
        said += [f"exit code {ended.code}, not {codes}: {words}"] if ended.code not in codes else []
        said += [f"unforeseen: {one}" for one in words if "defect" in one]
        return said + self.standing()

    def again(self, ended: Ended) -> list[str]:
        return [*self.arguments, "--retry-failed"]

    def go_on(self, driver: Driver, ended: Ended) -> list[str]:
        before = dict(self.done)
        said = super().go_on(driver, ended)
        now = {output: ended_s for output, state, ended_s in self.rows() if state == "done"}
        said += [f"{o}: rendered twice" for o, when in before.items() if now.get(o) != when]
        return said


@dataclass
class Training(Subject):
    """`tilemapper train`: a tiny network over a few steps, a checkpoint at each."""

    steps: int = 5
    settings: dict[str, str] = field(default_factory=dict)
    expected: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        data = write_pairs(self.place / "pairs", 6)
        settings = {
            **TINY, "trainer.steps": str(self.steps), "trainer.checkpoint_every": "1",
            "trainer.keep": "2", "trainer.sample_every": "3", "trainer.evaluate_every": "2",
            **self.settings,
        }  # fmt: skip
        self.run = self.folder / "run"
        self.arguments = ["train", str(data), "--out", str(self.run), "--device", "cpu"]
        self.arguments += [f"--set={key}={value}" for key, value in settings.items()]

    def remember(self) -> None:
        self.expected = self.result()

    def result(self) -> dict[str, Any]:
        """What a run is for: its last state without the clock, and the exported weights."""
        state = read_checkpoint(self.run / "checkpoints" / "last.ckpt")
        for clock in ("trained_s", "elapsed_s"):
            state.pop(clock)
        model = open_model(self.run / "model")
        weights = (model.folder / str(model.card.weights)).read_bytes()
        return {"state": state, "weights": hashlib.sha256(weights).hexdigest()}

    def whole(self) -> list[str]:
        try:
            found = self.result()
        except Exception as error:
            return [f"no finished run: {error}"]
        said = [] if same(found, self.expected) else ["other weights than an undisturbed run"]
        for name in ("report.html", "metrics.jsonl", "config.toml", "model/model.toml"):
            if not (self.run / name).is_file():
                said.append(f"{name} is missing")
        lines = (self.run / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line) for line in lines if _is_json(line)]
        trained = {one["step"] for one in steps if one.get("kind") == "train"}
        if not set(range(1, self.steps + 1)) <= trained:
            said.append(f"figures of steps {sorted(trained)} of {self.steps}")
        return said

    def standing(self) -> list[str]:
        said = []
        for path in sorted(self.run.glob("checkpoints/[!.]*")):
            try:
                read_checkpoint(path)
            except Exception as error:
                said.append(f"torn: {error}")
        card = self.run / "model" / "model.toml"
        if (self.run / "model").exists() and not card.is_file():
            said.append("half a model")
        return said

    def again(self, ended: Ended) -> list[str]:
        started = (self.run / "config.toml").exists()
        if started:
            return [*self.arguments[:6], "--resume"]
        return self.arguments


@dataclass
class Cutting(Subject):
    """`tilemapper pairs cut`: six pairs."""

    expected: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.place.mkdir(parents=True, exist_ok=True)
        imagery = write_source(self.place / "imagery.tif", 140, 200)
        self.map = write_source(self.place / "map.tif", 140, 200)
        self.out = self.folder / "pairs"
        self.arguments = ["pairs", "cut", str(imagery), str(self.map), str(self.out)]
        self.arguments += ["--tile", "64", "--json"]

    def found(self) -> dict[str, str | None]:
        """Digests of all files of the pairs."""
        paths = (path for path in sorted(self.out.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.out)): sha256(path) for path in paths}

    def remember(self) -> None:
        left, right = load_all(open_pairs(self.out))
        wanted = painted(140, 200).transpose(1, 2, 0)
        places = [(row, col) for row in (0, 64) for col in (0, 64, 128)]
        for index, (row, col) in enumerate(places):
            tile = wanted[row : row + 64, col : col + 64]
            assert (left[index] == tile).all() and (right[index] == tile).all()
        self.expected = self.found()
        assert len(self.expected) == 13

    def whole(self) -> list[str]:
        return [] if self.found() == self.expected else [f"pairs found: {sorted(self.found())}"]

    def standing(self) -> list[str]:
        # What looks like a finished set of pairs must be one.
        unfinished = (self.out / ".part").is_dir()
        if unfinished:
            try:
                open_pairs(self.out)
            except PairError:
                return []
        if self.out.exists() and any(self.out.iterdir()) and not self.finished():
            return [f"pairs that are not all: {sorted(self.found())}"]
        return []

    def finished(self) -> bool:
        """Whether all pairs lie where they belong; the index may still be on its way."""
        found = self.found()
        wanted = {n: sha for n, sha in self.expected.items() if n != "index.csv"}
        return wanted.items() <= found.items()

    def is_over(self) -> bool:
        return not self.whole()  # the folder is in use now

    def go_on(self, driver: Driver, ended: Ended) -> list[str]:
        return [] if self.is_over() else super().go_on(driver, ended)

    def litter(self) -> list[str]:
        wanted = {"A", "B", "index.csv"}
        return [f"left behind: {p}" for p in self.out.iterdir() if p.name not in wanted]


def same(one: Any, other: Any) -> bool:
    """Whether two nested states are equal, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
