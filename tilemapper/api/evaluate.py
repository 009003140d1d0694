"""`evaluate`: measures a model on held-out pairs, as users get it or in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tilemapper.api.evaluation import EvaluationResult
from tilemapper.errors import PairError, TargetError
from tilemapper.networks.model import Model, ModelCard, open_model
from tilemapper.raster.atomic import check_name, check_regular, check_suffix, write_text_atomic
from tilemapper.render.array import render_array
from tilemapper.render.devices import choose_device
from tilemapper.render.engine import open_engine
from tilemapper.training.evaluate import evaluate_model, row_names
from tilemapper.training.features import open_distances
from tilemapper.training.heldout import spread
from tilemapper.training.images import RgbImage
from tilemapper.training.jobfile import load_palette
from tilemapper.training.legend import legend_of
from tilemapper.training.metrics import check_figures
from tilemapper.training.pairs import PairSource, open_pairs, split_pairs
from tilemapper.training.prediction import (
    Predict,
    Prediction,
    at_size,
    whole_image_predictor,
)
from tilemapper.training.sheet import write_sheet
from tilemapper.training.split import (
    SplitDigest,
    digest_names,
    digest_pairs,
    digest_split,
    find_overlaps,
)


def evaluate(
    model: str | Path | Model,
    data: str | Path,
    *,
    direction: Literal["AtoB", "BtoA"] | None = None,
    split: str = "held-out",
    share: float | None = None,
    split_seed: int | None = None,
    pairs: int | None = None,
    overlaps: str | Path | None = None,
    tiled: bool = True,
    overlap: int | None = None,
    resize: int | None = None,
    baseline: Sequence[str | Path | Model] = (),
    palette: str | Path | None = None,
    device: str = "auto",
    min: Mapping[str, float] | None = None,
    sheet: str | Path | None = None,
    csv: str | Path | None = None,
    weights: str | Path | None = None,
    on_begin: Callable[[int], object] = lambda _count: None,
    tick: Callable[[], object] = lambda: None,
    on_figures: Callable[[EvaluationResult], object] = lambda _result: None,
) -> EvaluationResult:
    """Measures a model on pairs, at 256 pixels and at native scale, beside a constant colour.

    Args:
        model: an opened model, its folder, or its name.
        data: pairs, as `tilemapper.train` takes them.
        direction: AtoB or BtoA; the model's by default.
        split: ``held-out`` is the val folder, or the share that training holds out; ``all``.
        share: held out; by default the model's own, 0.1 where its card has none.
        split_seed: the model's own by default, or 0.
        pairs: at most so many, evenly spread.
        overlaps: JSON list of overlapping pairs; ``overlaps.json`` beside the data by default.
        tiled: through the render path, as users get it; else each image in one pass.
        overlap: of tiles, pixels, with ``tiled``; by default 64, or what a smaller tile allows.
        resize: shorter side given to the model, pixels.
        baseline: models to compare with.
        palette: job file with the classes that the maps are judged by, as `pairs palette` writes
            one, or ``config.toml`` of a run; by default the model's, or those of the maps set.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        min: bounds of figures; those that miss theirs are in ``missed`` of the result.
        sheet: PNG to write of the best, median and worst pairs.
        csv: file to write each pair's figures to.
        weights: ONNX network of features (FID, KID), or of two images (LPIPS).
        on_begin: called with the number of pairs, before the first.
        tick: called after each pair.
        on_figures: called with the result before a file is written, which a full disk may prevent.

    Raises:
        ModelError, PairError, JobError, DeviceError, OptionError, TargetError: as they are named.
        DiskFullError: of the sheet or the figures of each pair.
    """
    _check_outputs(*(Path(path) for path in (sheet, csv) if path))
    if sheet:
        check_suffix(Path(sheet), "PNG", (".png",))
    opened = model if isinstance(model, Model) else open_model(model)
    direction = direction or opened.card.direction
    source = open_pairs(Path(data), direction=direction)
    chosen: Sequence[int] = range(len(source))
    if split == "held-out":
        chosen = _held_out(opened, source, Path(data), share, split_seed, overlaps)
    indices = spread(chosen, pairs or len(source))
    legend = legend_of(opened.card.palette) if direction == "AtoB" else None
    if palette is not None:
        legend = legend_of(load_palette(Path(palette)))
    check_figures(dict(min or {}), legend)
    distances = open_distances(Path(weights)) if weights else None

    def predictor(measured: Model) -> Predict:
        return _predictor(measured, device, tiled=tiled, overlap=overlap, resize=resize)

    def on_pair(made: RgbImage, true: RgbImage) -> None:
        if distances:
            distances.add(made, true)
        tick()

    predict = predictor(opened)
    others = [other if isinstance(other, Model) else open_model(other) for other in baseline]
    names = [other.card.name if isinstance(other, Model) else str(other) for other in baseline]
    baselines = dict(zip(row_names(names), map(predictor, others), strict=True))
    on_begin(len(indices))
    evaluation = evaluate_model(
        predict, source, indices, baselines=baselines, legend=legend, on_pair=on_pair
    )
    result = EvaluationResult(
        model=opened.card.name,
        data=str(data),
        split=split,
        direction=direction,
        tiled=tiled,
        evaluation=evaluation,
        distances=distances.figures() if distances else {},
        missed=evaluation.below(dict(min or {})),
    )
    on_figures(result)
    if csv:
        write_text_atomic(Path(csv), evaluation.to_csv())
    if sheet:
        write_sheet(Path(sheet), evaluation, predict, source)
    return result


def _check_outputs(*paths: Path) -> None:
    """Refuses what cannot be written before the first pair: all figures would be lost after it."""
    for path in paths:
        check_name(path)
        if not path.parent.is_dir():
            raise TargetError(f"{path.parent}: no such folder; make it, or choose another output")
        if path.is_dir():
            raise TargetError(f"{path}: is a folder; name a file in it")
        check_regular(path)


def _held_out(
    model: Model,
    source: PairSource,
    data: Path,
    share: float | None,
    seed: int | None,
    overlaps: str | Path | None,
) -> Sequence[int]:
    """The pairs that training held out; what is not given is the model's own.

    Raises PairError when nothing else is asked for and they are other pairs than in training.
    """
    own = share is None and seed is None
    # By pixels first: pairs cut from rasters of one size have the same names, held out or not.
    if own and _has_learned(model.card, source):
        raise PairError(
            f"{data}: the model has learned from all of these pairs, others are needed; name those "
            "that were held out, or give --split all to measure how well it knows its own"
        )
    if own and digest_names(source.names) == model.card.held_out_sha256:
        return range(len(source))  # such as a val folder by itself
    if share is None:
        share = 0.1 if model.card.split_share is None else model.card.split_share
    seed = (model.card.split_seed or 0) if seed is None else seed
    known = find_overlaps(data, overlaps)
    split = split_pairs(source, share=share, overlaps=known, seed=seed)
    if own:
        _check_split(model.card, data, digest_split(source, split))
    return split.held_out


def _has_learned(card: ModelCard, source: PairSource) -> bool:
    """Whether the model has learned from all of these pairs, as far as its card says."""
    try:
        # The pairs are read only where a card has something to compare them with.
        return bool(card.trained_sha256) and (
            digest_pairs(source, range(len(source))) in card.trained_sha256
        )
    except PairError:
        if digest_names(source.names) != card.pairs_sha256:
            raise  # these may be pairs that were learned from, one of them damaged since
        return False  # the set that training split itself: which it held out is known by names


def _check_split(card: ModelCard, data: Path, found: SplitDigest) -> None:
    """Refuses to measure on pairs that the model has learned from: a list of overlaps is amiss."""
    if found.pairs == card.pairs_sha256 and found.held_out != card.held_out_sha256:
        raise PairError(
            f"{data}: other pairs are held out than in training, which had another list of "
            "overlapping pairs; give --overlaps, or --share for a split of your own"
        )


def _predictor(
    model: Model, device: str, *, tiled: bool, overlap: int | None, resize: int | None
) -> Predict:
    chosen = choose_device(device)
    if tiled:
        engine = open_engine(model, device=chosen)

        def predict_tiled(image: RgbImage) -> Prediction:
            rendered = render_array(image, engine, overlap=overlap)
            return Prediction(rendered.rgb, rendered.expected)

        predict: Predict = predict_tiled
    else:
        predict = whole_image_predictor(model, device=chosen)
    return at_size(predict, resize) if resize else predict
