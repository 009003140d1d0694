"""The contact sheet of an evaluation: its best, median and worst pairs, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tilemapper.extras import of_extra
from tilemapper.raster.atomic import atomic_write
from tilemapper.training.evaluate import (
    MODEL,
    PROTOCOL,
    Evaluation,
    at_protocol_size,
)
from tilemapper.training.metrics import falls
from tilemapper.training.pairs import PairSource
from tilemapper.training.prediction import Predict

with of_extra("train"):
    from PIL import Image, ImageDraw

SIDE, CAPTION_PX = 256, 18
COLUMNS = ("satellite", "generated", "true", "difference")


def write_sheet(
    path: Path,
    evaluation: Evaluation,
    predict: Predict,
    source: PairSource,
    *,
    by: str | None = None,
    each: int = 3,
) -> None:
    """Writes a PNG: a row for each of the best, median and worst pairs by one figure.

    Args:
        path: where to; replaced when it is there.
        evaluation: of this model on this source.
        predict: the model; its pictures are made again, so that none had to be kept.
        source: the pairs.
        by: the figure; road_f1, or psnr where there are no roads.
        each: pairs of each kind.
    """
    by, chosen = _choose(evaluation, by, each)
    index = {name: i for i, name in enumerate(source.names)}
    sheet = Image.new("RGB", (4 * SIDE, len(chosen) * (SIDE + CAPTION_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (kind, name, value) in enumerate(chosen):
        image, truth = source.load(index[name])
        made = predict(image).picture
        cells = [at_protocol_size(cell) for cell in (image, made, truth)]
        cells.append(np.abs(cells[1].astype(np.int16) - cells[2]).astype(np.uint8))
        top = line * (SIDE + CAPTION_PX)
        for column, cell in enumerate(cells):
            caption = COLUMNS[column] if column else f"{kind}: {name}, {by} {value:.3g}"
            draw.text((column * SIDE + 4, top + 3), caption, fill="black")
            sheet.paste(Image.fromarray(cell), (column * SIDE, top + CAPTION_PX))
    with atomic_write(path) as part:
        sheet.save(part, format="PNG")


def _choose(
    evaluation: Evaluation, by: str | None, each: int
) -> tuple[str, list[tuple[str, str, float]]]:
    """The figure, and (kind, pair, value) of the chosen pairs, best first, none twice."""
    row = evaluation.row(MODEL, PROTOCOL)
    assert row is not None
    figures = row.metrics.per_image()
    if by is None:
        by = "road_f1" if np.isfinite(figures.get("road_f1", np.array(np.nan))).any() else "psnr"
    values = figures[by] * (-1 if falls(by) else 1)
    order = [int(i) for i in np.argsort(-values) if np.isfinite(values[i])]
    middle = max(0, len(order) // 2 - each // 2)
    kinds = (
        ("best", order[:each]),
        ("median", order[middle : middle + each]),
        ("worst", order[-each:]),
    )
    chosen: dict[int, str] = {}
    for kind, members in kinds:
        for i in members:
            chosen.setdefault(i, kind)
    return by, [(kind, evaluation.names[i], float(figures[by][i])) for i, kind in chosen.items()]
