"""Measures a model on pairs, beside baselines, at 256 pixels and at the scale it renders at.

The 256 protocol resizes generated and true image as the GcGAN protocol does (bilinear, no
antialias), so that all figures at 256 are taken on the same pixels.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tilemapper.errors import PairError
from tilemapper.training.images import RgbImage
from tilemapper.training.legend import MAPS_LEGEND, Legend
from tilemapper.training.metrics import MapMetrics, falls, measure_maps
from tilemapper.training.pairs import PairSource
from tilemapper.training.prediction import Predict, Prediction
from tilemapper.training.similarity import resize_without_antialias

# The most frequent colour of the maps set: as good as published models in PSNR and SSIM.
LAND_COLOUR = (232, 228, 224)
MODEL, EXPECTED, CONSTANT = "model", "expected colour", "constant colour"
NATIVE, PROTOCOL = "native", "256"
# Figures of a palette model that its expected colour stands for; the rest judge its picture.
EXPECTED_FIGURES = ("psnr", "ssim")


@dataclass(frozen=True)
class Row:
    """One line of the table: whose images, at which scale, and their figures."""

    who: str
    scale: str
    metrics: MapMetrics


@dataclass(frozen=True)
class Evaluation:
    """The table of an evaluation; ``names`` are the pairs measured, in order."""

    names: list[str]
    rows: list[Row]

    def row(self, who: str, scale: str) -> Row | None:
        """The row of this name and scale, if there is one."""
        return next((row for row in self.rows if (row.who, row.scale) == (who, scale)), None)

    def headline(self) -> dict[str, float]:
        """The model's figures at 256; PSNR and SSIM of a palette model by its expected colour."""
        model, expected = self.row(MODEL, PROTOCOL), self.row(EXPECTED, PROTOCOL)
        assert model is not None
        figures = model.metrics.mean()
        if expected is not None:
            means = expected.metrics.mean()
            figures |= {name: means[name] for name in EXPECTED_FIGURES}
        return figures

    def below(self, wanted: dict[str, float]) -> list[str]:
        """A sentence for each headline figure that misses its bound; NaN misses any.

        The bound is the least allowed value, the most allowed one where less is better (rmse).
        """
        figures = self.headline()
        return [
            f"{name} {figures[name]:.4g}, {'at most' if falls(name) else 'at least'} {bound:g}"
            for name, bound in wanted.items()
            if not (figures[name] <= bound if falls(name) else figures[name] >= bound)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values: pairs, headline, and rows with mean, low and high; None for NaN."""
        return {
            "pairs": len(self.names),
            "headline": {name: _plain(v) for name, v in self.headline().items()},
            "rows": [_row_json(row) for row in self.rows],
        }

    def to_csv(self) -> str:
        """One line for each pair and row of the table; undefined figures are empty."""
        text = io.StringIO()
        figures = list(self.rows[0].metrics.per_image())
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["pair", "who", "scale", *figures])
        for row in self.rows:
            values = row.metrics.per_image()
            for i, name in enumerate(self.names):
                cells = [
                    f"{values[f][i]:.6g}" if np.isfinite(values[f][i]) else "" for f in figures
                ]
                writer.writerow([name, row.who, row.scale, *cells])
        return text.getvalue()


def evaluate_model(
    predict: Predict,
    source: PairSource,
    indices: Sequence[int],
    *,
    baselines: dict[str, Predict] | None = None,
    legend: Legend | None = MAPS_LEGEND,
    device: str | torch.device = "cpu",
    on_pair: Callable[[RgbImage, RgbImage], None] = lambda _made, _true: None,
) -> Evaluation:
    """Measures predictions of the chosen pairs, with a constant colour as first baseline.

    Args:
        predict: the model as a function of a source image; its result has the truth's size
            (measured as it is, "native", and at 256) or another one (measured at 256 only).
        source: the pairs, in the model's direction.
        indices: which pairs.
        baselines: other models by the name of their row, see `row_names`.
        legend: classes of the target's colours; None when the target is no map.
        device: where the figures are computed.
        on_pair: called once a pair with the model's picture and the true one.

    Raises:
        PairError: no pair is chosen, or one is damaged.
    """
    if not len(indices):
        raise PairError("no pair to evaluate on, at least one is needed; check the split")
    constant = np.array(
        LAND_COLOUR if legend is MAPS_LEGEND else _median_colour(source, indices), np.uint8
    )

    def paint_constant(image: RgbImage) -> Prediction:
        return Prediction(np.broadcast_to(constant, image.shape))

    predictors = {MODEL: predict, **(baselines or {}), CONSTANT: paint_constant}
    found: dict[tuple[str, str], list[MapMetrics]] = {}
    for index in indices:
        image, truth = source.load(index)
        for who, maker in predictors.items():
            made = maker(image)
            pictures = {who: made.picture}
            if who == MODEL:
                on_pair(made.picture, truth)
            if made.expected is not None:
                pictures[EXPECTED if who == MODEL else f"{who}, expected colour"] = made.expected
            for name, picture in pictures.items():
                for scale, metrics in _measure(picture, truth, legend, device).items():
                    found.setdefault((name, scale), []).append(metrics)
    # A scale that only some of the images have (native, when sizes differ) is left out.
    rows = [
        Row(who, scale, MapMetrics.join(parts))
        for (who, scale), parts in found.items()
        if len(parts) == len(indices)
    ]
    return Evaluation([source.names[i] for i in indices], rows)


def row_names(names: Iterable[str]) -> list[str]:
    """Names of the rows of baselines: none twice, and none of the rows that each table has."""
    taken = [MODEL, EXPECTED, CONSTANT]
    for name in names:
        numbered = itertools.chain([name], (f"{name} {count}" for count in itertools.count(2)))
        taken.append(next(one for one in numbered if one not in taken))
    return taken[3:]


def at_protocol_size(image: RgbImage) -> RgbImage:
    """(h, w, 3) -> (256, 256, 3) uint8, bilinear without antialias."""
    batch = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized: RgbImage = resize_without_antialias(batch)[0].permute(1, 2, 0).contiguous().numpy()
    return resized


def _measure(
    picture: RgbImage, truth: RgbImage, legend: Legend | None, device: str | torch.device
) -> dict[str, MapMetrics]:
    scales = {PROTOCOL: (at_protocol_size(picture), at_protocol_size(truth))}
    if picture.shape == truth.shape and picture.shape[:2] != (256, 256):
        scales[NATIVE] = (picture, truth)
    return {
        scale: measure_maps(made[None], true[None], legend=legend, device=device)
        for scale, (made, true) in scales.items()
    }


def _median_colour(source: PairSource, indices: Sequence[int]) -> list[float]:
    """The median colour of at most 50 of the true images."""
    chosen = indices[:: max(1, len(indices) // 50)]
    pixels = [source.load(i)[1][::4, ::4].reshape(-1, 3) for i in chosen]
    median: list[float] = np.median(np.concatenate(pixels), axis=0).tolist()
    return median


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row_json(row: Row) -> dict[str, Any]:
    intervals = row.metrics.intervals()
    figures = {
        name: {"mean": _plain(mean), "low": _plain(low), "high": _plain(high)}
        for name, mean in row.metrics.mean().items()
        for low, high in [intervals[name]]
    }
    return {"who": row.who, "scale": row.scale, "metrics": figures}
