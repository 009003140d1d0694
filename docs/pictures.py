"""Draws the pictures of these pages from the code itself and the synthetic city.

python docs/pictures.py [OUT]       all of them, into docs/pictures/ by default

Needs matplotlib (the extra ``train``) and half a minute. What is drawn is computed: lattice
and weights are the arrays that rendering uses, the maps are rendered by the shipped model.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import rasterio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from tilemapper.networks.model import Model, open_model
from tilemapper.raster.blend import AXIS_ONE
from tilemapper.raster.lattice import Axis, Lattice
from tilemapper.render.array import render_array
from tilemapper.render.engine import Engine, open_engine
from tilemapper.render.layers import palette_of
from tilemapper.render.stream import stream
from tilemapper.report.city import paint, write_city

PICTURES = Path(__file__).with_name("pictures")
INK, PALE, BLUE, ORANGE = "#1d2733", "#dfe5ea", "#2f6fb0", "#d9730d"
Pixels = NDArray[np.uint8]

mpl.rcParams.update(
    {
        "font.size": 9,
        "font.family": "DejaVu Sans",
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "figure.facecolor": "white",
    }
)


def lattice_picture() -> Figure:
    """Where tiles lie on a raster of 1000 x 700 px, and what is mirrored around it."""
    height, width = 700, 1000
    lattice = Lattice(height, width, overlap=64)
    figure, axes = plt.subplots(figsize=(7.2, 5.2), layout="constrained")
    cover = np.zeros((height + 160, width + 160), np.uint8)
    for row in lattice.rows.starts:
        for col in lattice.cols.starts:
            cover[row + 80 : row + 336, col + 80 : col + 336] += 1
    axes.imshow(cover, cmap="Blues", vmin=0, vmax=9, extent=(-80, width + 80, height + 80, -80))
    axes.add_patch(Rectangle((0, 0), width, height, fill=False, lw=2, ec=INK))
    for number, (row, col) in enumerate(((-32, -32), (-32, 160), (160, -32))):
        tile = Rectangle(
            (col, row), 256, 256, fill=False, lw=1.6, ec=ORANGE, ls=("-", "--", ":")[number]
        )
        axes.add_patch(tile)
    axes.annotate(
        "first tile starts at -32:\n32 px of mirrored rim",
        (-32, 100),
        (150, 330),
        arrowprops={"arrowstyle": "->", "color": ORANGE},
        color=ORANGE,
    )
    axes.annotate(
        "64 px shared",
        (192, 60),
        (440, 64),
        arrowprops={"arrowstyle": "->", "color": ORANGE},
        color=ORANGE,
    )
    last = int(lattice.cols.starts[-1])
    low = int(lattice.rows.starts[-1])
    axes.add_patch(Rectangle((last, low), 256, 256, fill=False, lw=1.6, ec=BLUE))
    axes.annotate(
        f"last tile starts at {last}:\na multiple of 32, whatever the width",
        (last, low + 60), (330, 580), arrowprops={"arrowstyle": "->", "color": BLUE}, color=BLUE,
    )  # fmt: skip
    axes.text(480, 690, f"raster, {width} x {height} px", weight="bold")
    axes.set(xlabel="column", ylabel="row", xticks=range(0, width + 1, 200))
    return figure


def weights_picture() -> Figure:
    """Blend weights of the tiles along an axis: they sum to 1024 at every pixel, edges included."""
    axis = Axis(700, 64)
    figure, axes = plt.subplots(figsize=(7.2, 2.8), layout="constrained")
    total = np.zeros(700 + 512, int)
    for number, (start, weights) in enumerate(zip(axis.starts, axis.weights, strict=True)):
        where = np.arange(start, start + 256)
        axes.fill_between(where, weights, alpha=0.25, color=(BLUE, ORANGE)[number % 2], lw=0)
        axes.plot(where, weights, color=(BLUE, ORANGE)[number % 2], lw=1.4, label=f"tile {number}")
        total[where + 256] += weights
    assert set(total[256 - 32 : 256 + 700].tolist()) == {AXIS_ONE}
    axes.plot(np.arange(-32, 700), total[224:956], color=INK, lw=2)
    axes.text(350, 1060, "sum: exactly 1024 at every pixel", ha="center", weight="bold")
    axes.axvspan(-60, 0, color=PALE, zorder=0)
    axes.axvspan(700, 764, color=PALE, zorder=0)
    axes.text(-56, 540, "mirrored", rotation=90, va="center")
    axes.text(722, 540, "mirrored", rotation=90, va="center")
    axes.set(
        xlim=(-60, 764),
        ylim=(0, 1180),
        xlabel="pixel along one axis",
        ylabel="weight",
        yticks=(0, 512, 1024),
    )
    return figure


def path_picture(model: Model) -> Figure:
    """The data's path on real pixels: source, tiles, predictions, blended map."""
    city, _ = paint(0, (2048, 2048), 600, 700, 448, 448)
    engine = open_engine(model, precision="fp32")
    lattice = Lattice(448, 448)
    tiles = gather(city, lattice)
    painted = predict(engine, tiles)
    whole = render_array(city, engine).rgb
    figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
    titles = (
        "1  source view",
        "2  tiles, 64 px shared, mirrored rim",
        "3  one prediction a tile",
        "4  exact blend",
    )
    for place, (panel, title) in enumerate(
        zip((city, exploded(tiles), exploded(painted), whole), titles, strict=True)
    ):
        show(axes[place], panel, title)
    return figure


def seams_picture(model: Model) -> Figure:
    """The same ground from tiles laid edge to edge, and from the lattice with exact blending."""
    city, _ = paint(0, (2048, 2048), 512 - 64, 1024 - 64, 640, 640)
    engine = open_engine(model, precision="fp32")
    corners = [(row, col) for row in (64, 320) for col in (64, 320)]
    alone = predict(engine, np.stack([city[r : r + 256, c : c + 256] for r, c in corners]))
    edge = np.concatenate([np.concatenate(list(alone[at : at + 2]), axis=1) for at in (0, 2)])
    blended = render_array(city, engine).rgb[64:576, 64:576]
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.5), layout="constrained")
    middle = slice(106, 406)
    show(axes[0], city[64:576, 64:576][middle, middle], "satellite")
    show(axes[1], edge[middle, middle], "tiles of 256 px laid edge to edge")
    show(axes[2], blended[middle, middle], "overlapping lattice, exact blend")
    axes[1].plot([149.5, 149.5], [300, 307], color=ORANGE, lw=2, clip_on=False)
    axes[1].plot([-8, -1], [149.5, 149.5], color=ORANGE, lw=2, clip_on=False)
    axes[1].set(xlim=(-0.5, 299.5), ylim=(299.5, -0.5))  # the marks lie outside
    return figure


def layers_picture(model: Model) -> Figure:
    """What one render of a palette model gives: the map, and how sure it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "city.tif"
        write_city(path, height=448, width=448, seed=3)
        block = next(iter(stream(path, model, uncertainty=True)))
        city = np.moveaxis(read_rgb(path), 0, 2)
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.2), layout="constrained")
    show(axes[0], city, "source")
    show(axes[1], np.moveaxis(block.pixels, 0, 2), "map")
    shown = axes[2].imshow(block.uncertainty, cmap="magma", vmin=0, vmax=255)
    axes[2].set_title("--uncertainty: entropy of the classes", fontsize=9)
    axes[2].set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes[2], shrink=0.8)
    return figure


def read_rgb(path: Path) -> Pixels:
    """A small raster, (3, h, w)."""
    with rasterio.open(path) as src:
        pixels: Pixels = src.read()
    return pixels


def gather(city: Pixels, lattice: Lattice) -> Pixels:
    """All tiles of a small image, (n, 256, 256, 3), its rim mirrored."""
    reach = int(lattice.rows.starts[-1]) + 256 - len(city)
    wide = np.pad(city, ((32, reach), (32, reach), (0, 0)), mode="reflect")
    return np.stack(
        [
            wide[r + 32 : r + 288, c + 32 : c + 288]
            for r in lattice.rows.starts
            for c in lattice.cols.starts
        ]
    )


def predict(engine: Engine, tiles: Pixels) -> Pixels:
    """Tiles as the generator alone paints them, each in the colour of its likeliest class."""
    full = np.concatenate([tiles, np.repeat(tiles[-1:], -len(tiles) % engine.batch_size, axis=0)])
    size = engine.batch_size
    made = np.concatenate(
        [engine.predict(full[at : at + size]) for at in range(0, len(full), size)]
    )
    return palette_of(engine.model)[made.argmax(axis=1)][: len(tiles)]


def exploded(tiles: Pixels, gap: int = 28) -> Pixels:
    """Tiles of a square lattice side by side with white between them."""
    side = round(len(tiles) ** 0.5)
    whole = np.full((side * 256 + (side - 1) * gap,) * 2 + (3,), 255, np.uint8)
    for number, tile in enumerate(tiles):
        row, col = (index * (256 + gap) for index in divmod(number, side))
        whole[row : row + 256, col : col + 256] = tile
    return whole


def show(axes: Axes, pixels: Pixels, title: str) -> None:
    """A panel without ticks."""
    axes.imshow(pixels, interpolation="antialiased")
    axes.set_title(title, fontsize=9)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """A PNG of at most 256 colours: a third of the bytes, and no eye sees it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def main(out: Path) -> None:
    """Draws them all."""
    model = open_model("maps")
    save(lattice_picture(), out / "lattice.png")
    save(weights_picture(), out / "weights.png")
    save(path_picture(model), out / "path.png")
    save(seams_picture(model), out / "seams.png")
    save(layers_picture(model), out / "layers.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else PICTURES)
