"""Figures that say whether a picture is a map: roads, water, parks, sharpness, what is invented.

PSNR and SSIM stand beside them, but a constant colour scores as well on those as published
models do. All figures are taken on uint8 images.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tilemapper.errors import OptionError
from tilemapper.training.legend import MAPS_LEGEND, Legend
from tilemapper.training.similarity import gcgan_protocol, psnr, ssim

Floats = NDArray[np.float64]
Row = dict[str, float]  # one image's figures or counts

BUFFER_PX = 3
LINES = "road"  # the class that is judged as thin lines, with a buffer
FALLING = frozenset({"loss", "rmse_gcgan"})


@dataclass(frozen=True)
class MapMetrics:
    """Figures of n images: some are averaged over the images, some are ratios of summed counts.

    Ratios are pooled: an image with a sliver of motorway must not count as much as one with an
    interchange. Per image, a class that neither image has gives NaN.
    """

    values: dict[str, Floats]  # name -> (n,), averaged
    counts: dict[str, Floats]  # name -> (n,), summed before dividing

    def per_image(self) -> dict[str, Floats]:
        """Every figure of every image, name -> (n,); NaN where it is undefined."""
        return {**self.values, **_ratios(self.counts)}

    def mean(self) -> dict[str, float]:
        """Every figure over all images; NaN where no image defines it."""
        count = len(next(iter(self.values.values())))
        return {name: float(v[0]) for name, v in self._pool(np.ones((1, count))).items()}

    def intervals(
        self, *, seed: int = 0, draws: int = 1000, level: float = 0.95
    ) -> dict[str, tuple[float, float]]:
        """Bootstrap percentile interval of each figure of `mean`, images drawn with return."""
        count = len(next(iter(self.values.values())))
        weights = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=draws)
        found = {}
        for name, drawn in self._pool(weights.astype(np.float64)).items():
            drawn = drawn[np.isfinite(drawn)]
            tails = [(1 - level) / 2, (1 + level) / 2]
            low, high = np.quantile(drawn, tails) if len(drawn) else (np.nan, np.nan)
            found[name] = (float(low), float(high))
        return found

    def _pool(self, weights: Floats) -> dict[str, Floats]:
        """Figures for each row of weights, (draws, n) -> name -> (draws,)."""
        means = {}
        for name, values in self.values.items():
            known = np.isfinite(values)
            means[name] = _divide(weights @ np.where(known, values, 0), weights @ known)
        return {**means, **_ratios({k: weights @ v for k, v in self.counts.items()})}

    @staticmethod
    def join(many: Sequence[MapMetrics]) -> MapMetrics:
        """The figures of several sets of images as one."""
        return MapMetrics(
            {name: np.concatenate([m.values[name] for m in many]) for name in many[0].values},
            {name: np.concatenate([m.counts[name] for m in many]) for name in many[0].counts},
        )


def measure_maps(
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    *,
    legend: Legend | None = MAPS_LEGEND,
    device: str | torch.device = "cpu",
) -> MapMetrics:
    """Measures generated against true images, each (n, h, w, 3) uint8.

    Always: psnr (dB), ssim, acc5, acc10, rmse_gcgan (see `similarity`), sharpness (gradient
    energy over the truth's: sums of squared steps between neighbours). With a legend also, by
    nearest colour, of each class that it judges: NAME_iou and NAME_invented (share of the pixels
    painted as the class that lie more than 3 px from any such true pixel), mean_iou over them,
    and of a class "road" road_f1 (3-pixel buffer: hits are pixels within 3 px of the other
    image's road) in place of its IoU, which a line one pixel off would lose.

    Args:
        predicted: generated images.
        truth: true images of the same shape.
        legend: classes of the map; None for photographs (map to satellite).
        device: where to compute.

    Raises:
        ValueError: the shapes differ or the arrays are not uint8.
    """
    if predicted.shape != truth.shape or predicted.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(
            f"predicted is {predicted.dtype} {predicted.shape}, truth {truth.dtype} "
            f"{truth.shape}; two uint8 arrays (n, h, w, 3) of one shape are needed"
        )

    def measure(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> tuple[Row, Row]:
        p, t = (torch.from_numpy(np.array(image)).to(device) for image in pair)  # (h, w, 3)
        return _measure_one(p, t, legend)

    # One image at a time, so that memory is bounded at any n; torch releases the lock.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        rows = list(pool.map(measure, zip(predicted, truth, strict=True)))
    return MapMetrics(_stack([row[0] for row in rows]), _stack([row[1] for row in rows]))


def falls(name: str) -> bool:
    """Whether less of a figure is better."""
    return name in FALLING or name.endswith("_invented")


def figure_names(legend: Legend | None) -> list[str]:
    """The figures that `measure_maps` takes with a legend."""
    blank = np.zeros((1, 16, 16, 3), np.uint8)
    return list(measure_maps(blank, blank, legend=legend).mean())


def check_figures(names: Iterable[str], legend: Legend | None) -> None:
    """Refuses names that `measure_maps` has no figure of, before anything long is begun.

    Raises:
        OptionError: naming the figures that there are.
    """
    there = figure_names(legend)
    for name in names:
        if name not in there:
            raise OptionError(f"metric {name}: unknown, there are: {', '.join(there)}; choose one")


def _measure_one(predicted: Tensor, truth: Tensor, legend: Legend | None) -> tuple[Row, Row]:
    """Values and counts of one image, both (h, w, 3) uint8."""
    x, y = (image.permute(2, 0, 1).contiguous()[None] for image in (predicted, truth))
    values = {"psnr": psnr(x, y), "ssim": ssim(x, y), **gcgan_protocol(x, y)}
    counts = {"energy": _gradient_energy(x), "energy_true": _gradient_energy(y)}
    if legend is not None:
        counts |= _class_counts(predicted, truth, legend)
    return {k: float(v) for k, v in values.items()}, {k: float(v) for k, v in counts.items()}


def _stack(rows: list[Row]) -> dict[str, Floats]:
    return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def _gradient_energy(images: Tensor) -> int:
    x = images.to(torch.int32)
    return sum(int(x.diff(dim=dim).square().sum()) for dim in (2, 3))


def _class_counts(predicted: Tensor, truth: Tensor, legend: Legend) -> dict[str, int]:
    """Pixel counts of the judged classes in one image, both (h, w, 3) uint8."""
    group = torch.zeros(len(legend.names), dtype=torch.int64, device=truth.device)
    for k, name in enumerate(legend.judged, start=1):
        group[legend.indices(name)] = k
    painted, true = (group[legend.nearest(image)] for image in (predicted, truth))
    counts = {}
    for k, name in enumerate(legend.judged, start=1):  # one at a time: a legend may be long
        found, real = painted == k, true == k
        counts[f"{name}_painted"] = _pixels(found)
        counts[f"{name}_near"] = _pixels(found & _within_buffer(real))
        counts[f"{name}_both"] = _pixels(found & real)
        counts[f"{name}_either"] = _pixels(found | real)
        if name == LINES:
            counts["road_recalled"] = _pixels(real & _within_buffer(found))
            counts["road_true"] = _pixels(real)
    return counts


def _pixels(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask))


def _within_buffer(mask: Tensor) -> Tensor:
    """Pixels at most `BUFFER_PX` (Euclidean) from a true pixel, (h, w) bool."""
    if not mask.any():
        return mask
    offsets = torch.arange(-BUFFER_PX, BUFFER_PX + 1, device=mask.device)
    disc = (offsets[:, None] ** 2 + offsets**2 <= BUFFER_PX**2).float()
    return F.conv2d(mask[None, None].float(), disc[None, None], padding=BUFFER_PX)[0, 0] > 0.5


def _divide(above: Floats, below: Floats) -> Floats:
    """Quotient, NaN where nothing is divided by nothing or anything by zero."""
    result: Floats = np.full(np.shape(above), np.nan)
    return np.divide(above, below, out=result, where=np.asarray(below) > 0)


def _ratios(counts: dict[str, Floats]) -> dict[str, Floats]:
    """Figures from counts, of one image or summed over many."""
    figures = {}
    judged = [key.removesuffix("_painted") for key in counts if key.endswith("_painted")]
    if LINES in judged:
        # F1 = 2 P R / (P + R); with a class on one side only it is 0, with none undefined.
        painted, true = counts["road_painted"], counts["road_true"]
        precision = counts["road_near"] / np.maximum(painted, 1)
        recall = counts["road_recalled"] / np.maximum(true, 1)
        both = np.where(painted + true > 0, np.maximum(precision + recall, 1e-12), 0)
        figures["road_f1"] = _divide(2 * precision * recall, both)
    ious = {name: _divide(counts[f"{name}_both"], counts[f"{name}_either"]) for name in judged}
    figures |= {f"{name}_iou": iou for name, iou in ious.items() if name != LINES}
    if ious:
        known = np.stack(list(ious.values()))
        figures["mean_iou"] = _divide(np.nansum(known, axis=0), np.isfinite(known).sum(axis=0))
    figures["sharpness"] = _divide(counts["energy"], counts["energy_true"])
    for name in judged:
        painted = counts[f"{name}_painted"]
        figures[f"{name}_invented"] = _divide(painted - counts[f"{name}_near"], painted)
    return figures
