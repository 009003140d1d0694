"""Other ways to run a network over a raster: each reads a file and writes one.

terratorch and pytorch-toolbelt need packages that do not go with a torch for CPUs, but their tiled
inference does not: its file is loaded alone.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

TILE, OVERLAP = 256, 64
STRIDE = TILE - OVERLAP

Network = Callable[[Any], Any]


def read_whole(path: Path) -> Any:
    """The raster as a network takes it, (1, 3, h, w) float32 in [-1, 1]."""
    import torch

    with rasterio.open(path) as src:
        pixels = torch.from_numpy(src.read())
    return pixels[None].float().div_(127.5).sub_(1)


def grey(values: Any) -> NDArray[np.uint8]:
    """Network values in [-1, 1] as pixels."""
    import torch

    pixels = values.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    array: NDArray[np.uint8] = pixels.cpu().numpy()
    return array


def output_profile(path: Path) -> dict[str, Any]:
    """How every peer writes: tiled, DEFLATE 1 with predictor, no overviews."""
    with rasterio.open(path) as src:
        grid = {name: src.profile[name] for name in ("height", "width", "crs", "transform")}
    profile: dict[str, Any] = {"driver": "GTiff", "count": 3, "dtype": "uint8", **grid}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    return profile | {"compress": "deflate", "zlevel": 1, "predictor": 2, "BIGTIFF": "IF_SAFER"}


def write_whole(source: Path, target: Path, pixels: NDArray[np.uint8]) -> None:
    """Pixels, (3, h, w) uint8, to a file."""
    with rasterio.open(target, "w", **output_profile(source)) as dst:
        dst.write(pixels)


def monai(mode: str, network: Network, batch: int, source: Path, target: Path) -> None:
    """MONAI's sliding_window_inference."""
    from monai.inferers import sliding_window_inference

    image = read_whole(source)
    share = OVERLAP / TILE
    painted = sliding_window_inference(
        image, (TILE, TILE), batch, network, overlap=share, mode=mode, padding_mode="reflect"
    )
    write_whole(source, target, grey(painted[0]))


def toolbelt(network: Network, batch: int, source: Path, target: Path) -> None:
    """pytorch-toolbelt's ImageSlicer and TileMerger, as its README uses them."""
    import torch

    tiles = alone("pytorch-toolbelt", "pytorch_toolbelt/inference/tiles.py")
    with rasterio.open(source) as src:
        image = np.ascontiguousarray(src.read().transpose(1, 2, 0))
    slicer = tiles.ImageSlicer(image.shape, TILE, STRIDE, weight="pyramid")
    merger = tiles.TileMerger(slicer.target_shape, 3, slicer.weight.astype(np.float32))
    for group in in_groups(slicer.iter_split(image), batch):
        pixels = np.stack([tile for tile, _ in group]).transpose(0, 3, 1, 2)
        ready = torch.from_numpy(pixels).float().div_(127.5).sub_(1)
        merger.integrate_batch(network(ready), [at for _, at in group])
    painted = slicer.crop_to_orignal_size(merger.merge_().permute(1, 2, 0))
    write_whole(source, target, grey(painted.permute(2, 0, 1)))


def terratorch(network: Network, batch: int, source: Path, target: Path) -> None:
    """terratorch's tiled_inference with its cosine blend."""
    # Its one import of its own is a function that tiled_inference does not call.
    for name in ("terratorch", "terratorch.models", "terratorch.models.utils"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["terratorch.models.utils"].pad_images = None  # type: ignore[attr-defined]
    module = alone("terratorch", "terratorch/tasks/tiled_inference.py")
    painted = module.tiled_inference(
        network, read_whole(source), crop=TILE, stride=STRIDE, delta=0, batch_size=batch,
        padding=False,
    )  # fmt: skip
    write_whole(source, target, grey(painted[0]))


def loop(network: Network, batch: int, source: Path, target: Path) -> None:
    """What most scripts do: a window a tile, read, painted, its middle written."""
    import torch

    with (
        rasterio.open(source) as src,
        rasterio.open(target, "w", **output_profile(source)) as dst,
    ):
        starts = [first_pixels(src.height), first_pixels(src.width)]
        corners = ((row, col) for row in starts[0] for col in starts[1])
        for group in in_groups(corners, batch):
            pixels = np.stack([src.read(window=Window(c, r, TILE, TILE)) for r, c in group])
            ready = torch.from_numpy(pixels).float().div_(127.5).sub_(1)
            for (row, col), tile in zip(group, grey(network(ready)), strict=True):
                top, left = (OVERLAP // 2 if at else 0 for at in (row, col))
                window = Window(col + left, row + top, TILE - left, TILE - top)
                dst.write(tile[:, top:, left:], window=window)


def first_pixels(length: int) -> list[int]:
    """Where tiles start along one side; the last is moved back to the edge."""
    starts = list(range(0, length - TILE, STRIDE))
    return [*starts, length - TILE]


def in_groups(items: Any, size: int) -> Iterator[list[Any]]:
    """Items by so many."""
    group = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def alone(package: str, name: str) -> ModuleType:
    """One file of an installed package, without what the package itself would import."""
    path = Path(str(distribution(package).locate_file(name)))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


PEERS: dict[str, Callable[..., None]] = {
    "MONAI constant": lambda *a: monai("constant", *a),
    "MONAI gaussian": lambda *a: monai("gaussian", *a),
    "pytorch-toolbelt": toolbelt,
    "terratorch": terratorch,
    "plain loop": loop,
}
NEEDS = {"MONAI constant": "monai", "MONAI gaussian": "monai"}


def installed(name: str) -> bool:
    """Whether a contestant's package is here."""
    package = NEEDS.get(name, name)
    if package in ("plain loop", "tilemapper", "forward"):
        return True
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
