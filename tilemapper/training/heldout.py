"""The held-out pairs of a run: the metric that picks the best checkpoint, and the sample sheets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tilemapper.raster.atomic import atomic_write, make_folder
from tilemapper.training.assembly import whole_float32
from tilemapper.training.legend import Legend
from tilemapper.training.metrics import MapMetrics, falls, measure_maps
from tilemapper.training.pixels import Pixels

Images = NDArray[np.uint8]


class HeldOut:
    """Centre crops of the held-out pairs, and what a generator makes of them.

    ``source``, ``target``: (n, crop, crop, 3) uint8. ``paint`` turns the network's output into an
    image in [-1, 1]; ``legend`` gives the figures of map classes, None for photographs.
    """

    def __init__(
        self,
        pixels: Pixels,
        crop: int,
        paint: Callable[[Tensor], Tensor],
        *,
        legend: Legend | None,
    ) -> None:
        self.source = centre_crops(pixels, pixels.source, crop)
        self.target = centre_crops(pixels, pixels.target, crop)
        self.paint = paint
        self.legend = legend

    def __len__(self) -> int:
        return len(self.source)

    def generate(
        self,
        generator: nn.Module,
        device: torch.device,
        *,
        count: int | None = None,
        batch: int = 8,
    ) -> Images:
        """Images of the first ``count`` pairs, (count, crop, crop, 3) uint8, in eval mode."""
        return generate(generator.eval(), self.source[:count], self.paint, device, batch=batch)

    def measure(
        self,
        generator: nn.Module,
        device: torch.device,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """The figures of `metrics`, and "loss", the mean absolute difference in [-1, 1].

        ``check`` is called every few images, and may raise.
        """
        made = generate(generator.eval(), self.source, self.paint, device, batch=8, check=check)
        parts = []
        for first in range(0, len(made), 8):
            check()
            some = slice(first, first + 8)
            parts.append(measure_maps(made[some], self.target[some], legend=self.legend))
        figures = MapMetrics.join(parts).mean()
        loss = np.abs(made.astype(np.float32) - self.target).mean() / 127.5
        return {**figures, "loss": float(loss)}

    def sheet(self, made: Images) -> Images:
        """Rows of satellite | generated | true | difference of the images made."""
        n = len(made)
        gap = np.abs(made.astype(np.int16) - self.target[:n]).astype(np.uint8)
        rows = np.concatenate([self.source[:n], made, self.target[:n], gap], axis=2)
        return rows.reshape(-1, *rows.shape[2:])


def centre_crops(pixels: Pixels, side: Tensor, crop: int) -> Images:
    """The centre of every image of one side, (n, crop, crop, 3) uint8."""
    crops = []
    tables = (pixels.offset.tolist(), pixels.height.tolist(), pixels.width.tolist())
    for offset, height, width in zip(*tables, strict=True):
        image = side[offset : offset + height * width].view(height, width, 3)
        top, left = (height - crop) // 2, (width - crop) // 2
        crops.append(image[top : top + crop, left : left + crop].cpu().numpy())
    return np.stack(crops)


@torch.no_grad()
def generate(
    network: nn.Module,
    source: Images,
    paint: Callable[[Tensor], Tensor],
    device: torch.device,
    *,
    batch: int,
    check: Callable[[], None] = lambda: None,
) -> Images:
    """What the network, in the mode it is in, paints of (n, h, w, 3) uint8, in float32."""
    made = []
    for first in range(0, len(source), batch):
        check()
        x = torch.from_numpy(source[first : first + batch]).to(device).permute(0, 3, 1, 2)
        with whole_float32():
            y = paint(network(x.float() / 127.5 - 1))
        levels = ((y.clamp(-1, 1) + 1) * 127.5).round().byte()
        made.append(levels.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(made)


def better(name: str, new: float, old: float | None) -> bool:
    """Whether a figure is better than the one so far; NaN never is."""
    if new != new:
        return False
    if old is None:
        return True
    return new < old if falls(name) else new > old


def spread(indices: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the indices, evenly spread."""
    if len(indices) <= count:
        return list(indices)
    return [indices[i * len(indices) // count] for i in range(count)]


def write_png(path: Path, image: Images) -> None:
    """Writes (h, w, 3) uint8 atomically."""
    from PIL import Image

    make_folder(path.parent)
    with atomic_write(path) as part:
        Image.fromarray(image).save(part, format="PNG", optimize=False)
