"""Keys of a training job that were never set together: all pairs of their values, a few a run.

Each job trains, stops and goes on to the same bits, and its model renders; or it is refused in one
line before its first step. TILEMAPPER_FAULT_SEED draws other jobs.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from pathlib import Path

import pytest
import torch

import tilemapper
from tests.faults.table import count
from tests.training.synthetic_pairs import COLOURS, TINY, stopped_after, write_pairs
from tilemapper.errors import TilemapperError
from tilemapper.networks.model import open_model
from tilemapper.training.checkpoint import read_checkpoint
from tilemapper.training.jobtext import toml_value
from tilemapper.training.pairs import open_pairs, pack_pairs
from tilemapper.training.run import train

Keys = dict[str, tuple[str, ...]]
NORMS = ("batch", "instance", "instance_affine", "none")
RESIDUAL = "width=2, first_blocks=0, blocks=0, up_blocks=0"
# What is not a key is made into some by `settings_of`.
COMMON: Keys = {
    "data": ("pairs", "pairs.npz"),
    "generator": ("unet width=2, depth=3", "resnet width=2, blocks=1", f"residual {RESIDUAL}",
                  f"residual stride=32, {RESIDUAL}", 'unet width=2, depth=5, upsample="resize"',
                  "efficientnet width=2"),
    "norm": NORMS,
    "dropout": ("0.0", "0.4"),
    "discriminator": ("n_layers=1", "n_layers=2, scales=2", "n_layers=1, spectral=true"),
    "judge_norm": NORMS,
    "augment.crop": ("32", "64"), "augment.flips": ("none", "horizontal", "both"),
    "augment.right_angles": ("true", "false"),
    "augment.scale": ("[1.0, 1.0]", "[0.8, 1.2]", "[1.5, 2.0]"),
    "data.held_out": ("0.2", "0.0"), "data.resize": ("0", "150"),
    "data.storage": ("auto", "device", "host", "mmap"), "data.extra": ("more", "none"),
    "trainer.optimizer": ("adam", "adamw"),
    "trainer.schedule": ("constant", "linear", "half-linear", "cosine"),
    "trainer.warm_up": ("0.0", "1.0"), "trainer.clip": ("0.0", "1.0"),
    "trainer.ema": ("0.0", "0.9"), "trainer.precision": ("fp32", "bf16"),
    "trainer.channels_last": ("true", "false"), "trainer.checkpoint_every": ("0", "1", "2"),
    "trainer.keep": ("0", "1"), "trainer.evaluate_every": ("0", "1", "2"),
    "trainer.evaluate_pairs": ("1", "64"), "trainer.sample_every": ("0", "2"),
    "trainer.best_by": ("psnr", "loss"), "trainer.precise_bn_batches": ("0", "2"),
}  # fmt: skip
ADVERSARIAL: Keys = {
    "losses.gan": ("none", "bce", "lsgan", "hinge", "wgan-gp"),
    "losses.gan_weight": ("1.0", "0.0"), "losses.gan_from": ("0.0", "0.5", "1.0"),
    "losses.joint_batch": ("true", "false"), "losses.feature_matching": ("0.0", "5.0"),
    "losses.gradient_l1": ("0.0", "1.0"),
    "augment.noise": ("0.0", "0.05"), "augment.jpeg_quality": ("100", "30"),
    "augment.gamma": ("0.0", "0.7"),
    "augment.saturation": ("0.0", "2.0"),
}  # fmt: skip
# Neither goes with the other.
ALONE: Keys = {"augment.rotation": ("0.0", "9.0"), "trainer.batch": ("2", "4", "1")}
COUPLES: Keys = {"losses.overlap_disagreement": ("0.0", "1.0"), "trainer.batch": ("2", "4")}
KINDS: dict[str, Keys] = {
    "rgb": COMMON | ADVERSARIAL | ALONE | {
        "losses.l1": ("10.0",), "data.direction": ("AtoB", "BtoA"),
    },
    "palette": COMMON | ADVERSARIAL | COUPLES | {
        "losses.l1": ("0.0", "10.0"), "losses.cross_entropy": ("1.0",),
        "losses.jaccard": ("0.0", "1.0"), "losses.class_power": ("0.0", "0.4"),
        "losses.class_boost": ("{}", "{road=3.0}"), "trainer.calibration_batches": ("0", "2"),
    },
    "cyclegan": COMMON | ALONE | {
        "losses.gan": ("bce", "lsgan", "hinge"), "losses.cycle": ("10.0", "0.0"),
        "losses.identity": ("5.0", "0.0"), "losses.pool": ("50", "0", "3"),
        "data.unpaired": ("true", "false"), "data.direction": ("AtoB", "BtoA"),
    },
}  # fmt: skip
PRESETS = {"rgb": "classic", "palette": "fast", "cyclegan": "cyclegan"}


def rows_of_all_pairs(keys: Keys, chance: random.Random) -> list[dict[str, str]]:
    """Rows in which every two values of every two keys meet; greedy, so not the fewest."""
    wanted = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(sorted(keys), 2)
        for x, y in itertools.product(keys[a], keys[b])
    }
    rows = []
    while wanted:
        row = dict(chance.choice(sorted(wanted)))
        for key in chance.sample(sorted(keys), len(keys)):
            met = {
                value: sum(tuple(sorted(((key, value), other))) in wanted for other in row.items())
                for value in chance.sample(keys[key], len(keys[key]))
            }
            row.setdefault(key, max(met, key=lambda value: met[value]))
        wanted -= set(itertools.combinations(sorted(row.items()), 2))
        rows.append(row)
    return rows


def settings_of(row: dict[str, str], kind: str, place: Path) -> dict[str, str]:
    """A row as settings of a tiny job."""
    name, _, arguments = row["generator"].partition(" ")
    classes = zip(("land", "building", "water", "road"), COLOURS, strict=True)
    own = {key: value for key, value in row.items() if "." in key and key != "data.extra"}
    extra = toml_value([{"path": str(place / "more"), "share": 0.3}])
    normed = f"dropout={row['dropout']}"
    if name != "efficientnet":  # whose norms are given
        normed += f', norm="{row["norm"]}"'
    judge = f'width=2, norm="{row["judge_norm"]}", {row["discriminator"]}'
    return {
        **{key: value for key, value in TINY.items() if not key.startswith("losses.")},
        **own,
        "trainer.steps": "3",
        "networks.generator": name,
        "networks.generator_arguments": f"{{{arguments}, {normed}}}",
        "networks.discriminator_arguments": f"{{{judge}}}",
        "data.extra": extra if row["data.extra"] == "more" else "[]",
        "palette": toml_value([{"name": n, "colour": c} for n, c in classes]),
        "networks.head": "palette" if kind == "palette" else "rgb",
    }


def fault_of(row: dict[str, str], kind: str, place: Path, run: Path) -> str:
    """What went wrong with a job, "" if nothing did; "refused" for one that cannot be trained."""
    taken = []
    job = {"preset": PRESETS[kind], "settings": settings_of(row, kind, place)}
    data = place / row["data"]
    try:
        result = train(data, run / "straight", progress=taken.append, **job)
    except Exception as error:
        told = isinstance(error, TilemapperError) and "\n" not in str(error) and ";" in str(error)
        early = not taken and not (run / "straight").exists()
        return "refused" if told and early else f"{len(taken)} steps, then {error!r}"
    if not all(math.isfinite(loss) for step in taken for loss in step.losses.values()):
        return "a loss is not finite"
    train(data, run / "stopped", **job, **stopped_after(2))
    again = train(data, run / "stopped", resume=True)
    cards = [open_model(made.model).card for made in (result, again)]
    if cards[0].weights_sha256 != cards[1].weights_sha256:
        return "another model when it was stopped"
    one, other = (
        read_checkpoint(run / name / "checkpoints" / "last.ckpt")["modules"]
        for name in ("straight", "stopped")
    )
    for name, tensors in one.items():
        if not all(torch.equal(tensor, other[name][n]) for n, tensor in tensors.items()):
            return f"another {name} when it was stopped"
    tilemapper.render(place / "city.tif", run / "map.tif", model=result.model, device="cpu")
    return ""


@pytest.mark.fault
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_all_pairs_of_keys_train_to_the_end_or_are_refused_at_the_start(
    kind, tmp_path, make_raster, monkeypatch
):
    monkeypatch.setattr("tilemapper.training.lossplot.loss_plot", lambda _events: b"")
    write_pairs(tmp_path / "pairs", 7, 160)
    write_pairs(tmp_path / "more", 3, 160)
    pack_pairs(open_pairs(tmp_path / "pairs"), tmp_path / "pairs.npz")
    make_raster(70, 90)
    seed = os.environ.get("TILEMAPPER_FAULT_SEED", "1")
    rows = rows_of_all_pairs(KINDS[kind], random.Random(f"{kind} {seed}"))
    found = [fault_of(row, kind, tmp_path, tmp_path / str(n)) for n, row in enumerate(rows)]
    refused = found.count("refused")
    wrong = [(f, row) for f, row in zip(found, rows, strict=True) if f not in ("", "refused")]
    note = f"{refused} refused at the start, a stop and a render of the others; seed {seed}"
    count(f"training jobs of all pairs of keys: {kind}", len(rows), len(wrong), note)
    assert not wrong
    assert refused < len(rows) / 3
