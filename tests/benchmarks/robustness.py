"""Figures of a model on imagery that is worse than its training's: what each fault costs.

    python tests/benchmarks/robustness.py maps maps/train --overlaps overlaps.json

The held-out pairs of the model's card, centre crops at the model's own ground resolution, and the
figures at that scale. Faults are made to the imagery alone, but for the two of resolution, which
show the same place larger or smaller, map and all. "matched" is what `render --tone match` does:
one gain and offset a band for the whole set, as for one raster.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tilemapper.networks.folding import fold_norms
from tilemapper.networks.model import Model, open_model
from tilemapper.raster.tone import apply_tone, tone_between, tone_table
from tilemapper.training.imagery import YCC, blur
from tilemapper.training.metrics import measure_maps
from tilemapper.training.pairs import open_pairs, split_pairs

Pixels = NDArray[np.uint8]
SHOWN = ("road_f1", "water_iou", "park_iou", "motorway_iou", "acc5", "psnr", "road_invented")


def toned(gain: float = 1.0, offset: float = 0.0, cast: tuple[float, ...] = (0, 0, 0)) -> Callable:
    """Contrast about mid-grey, brightness and cast in grey levels."""

    def apply(image: Pixels) -> Pixels:
        levels = (image.astype(np.float32) - 127.5) * gain + 127.5 + offset + np.array(cast)
        return levels.round().clip(0, 255).astype(np.uint8)

    return apply


def curved(exponent: float) -> Callable:
    """Tones as shares of white, raised to a power: below 1 brighter."""

    def apply(image: Pixels) -> Pixels:
        levels = 255 * (image.astype(np.float32) / 255) ** exponent
        return levels.round().astype(np.uint8)

    return apply


def saturated(factor: float) -> Callable:
    """The distance of colours from the grey of their brightness, so many times as far."""

    def apply(image: Pixels) -> Pixels:
        levels = image.astype(np.float32)
        grey = (levels @ np.array(YCC[0], np.float32))[..., None]
        return (grey + factor * (levels - grey)).round().clip(0, 255).astype(np.uint8)

    return apply


def bright_and_colourful(image: Pixels) -> Pixels:
    """About what imagery of Nepal and Switzerland is beside that of New York."""
    return saturated(3)(curved(0.6)(image))


def blurred(sigma: float) -> Callable:
    """Gaussian blur of that standard deviation in pixels."""

    def apply(image: Pixels) -> Pixels:
        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
        out: Pixels = blur(x, torch.tensor([sigma]))[0].permute(1, 2, 0).round().byte().numpy()
        return out

    return apply


def compressed(quality: int) -> Callable:
    """JPEG of that quality and back."""

    def apply(image: Pixels) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return apply


FAULTS: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": lambda image: image,
    "brightness +25": toned(offset=25),
    "brightness +50": toned(offset=50),
    "brightness -25": toned(offset=-25),
    "tones to the power of 0.6": curved(0.6),
    "tones to the power of 1.5": curved(1.5),
    "contrast x 1.4": toned(gain=1.4),
    "contrast x 0.6": toned(gain=0.6),
    "cast +15 red, -15 blue": toned(cast=(15, 0, -15)),
    "no colours": saturated(0),
    "colours 3 times as strong": saturated(3),
    "tones to the power of 0.6, then colours 3 times as strong": bright_and_colourful,
    "blur, 1 px": blurred(1.0),
    "blur, 2 px": blurred(2.0),
    "JPEG quality 50": compressed(50),
    "JPEG quality 20": compressed(20),
}
SIZES = {"20 % finer": 1.2, "20 % coarser": 1 / 1.2}


def centre(image: Pixels, side: int) -> Pixels:
    """The centre of an image."""
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return image[top : top + side, left : left + side]


def resized(image: Pixels, factor: float, how: Image.Resampling) -> Pixels:
    """An image at ``factor`` times its size."""
    size = [round(n * factor) for n in (image.shape[1], image.shape[0])]
    return np.asarray(Image.fromarray(image).resize(size, how))


def figures(model: Model, generator: torch.nn.Module, made: list[Pixels], true: list[Pixels]):
    """Figures of the most likely classes of ``made``, all of them tiles."""
    palette = np.array([c.colour for c in model.card.palette], np.uint8)
    painted = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for image in made:
            x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            logits = generator(x.to(memory_format=torch.channels_last))[0]
            painted.append(palette[logits.argmax(0).numpy()])
    return measure_maps(np.stack(painted), np.stack(true)).mean()


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--overlaps", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(arguments.model)
    source = open_pairs(arguments.data)
    share = model.card.split_share or 0.1
    split = split_pairs(source, share=share, overlaps=arguments.overlaps, seed=arguments.seed)
    pairs = [source.load(index) for index in split.held_out]
    generator = fold_norms(model.generator()).to(memory_format=torch.channels_last)
    tile = model.card.tile
    assert model.card.tone is not None, "the card has no tone to match"
    wanted = (model.card.tone.mean, model.card.tone.std)
    true = [centre(b, tile) for _, b in pairs]
    rows = {}
    for name, fault in FAULTS.items():
        whole = [fault(a) for a, _ in pairs]
        rows[name] = figures(model, generator, [centre(a, tile) for a in whole], true)
        tone = tone_between(np.stack(whole)[:, ::4, ::4].transpose(3, 0, 1, 2), wanted)
        assert tone is not None
        table = tone_table(tone)
        matched = [apply_tone(centre(a, tile).transpose(2, 0, 1), table) for a in whole]
        rows[f"{name}, matched"] = figures(
            model, generator, [image.transpose(1, 2, 0) for image in matched], true
        )
    for name, factor in SIZES.items():
        made = [centre(resized(a, factor, Image.Resampling.BICUBIC), tile) for a, _ in pairs]
        same = [centre(resized(b, factor, Image.Resampling.NEAREST), tile) for _, b in pairs]
        rows[name] = figures(model, generator, made, same)
    print(f"{model.card.name}, {len(pairs)} pairs\n\n| imagery | {' | '.join(SHOWN)} |")
    print(f"|---|{'---|' * len(SHOWN)}")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(f'{found[figure]:.3f}' for figure in SHOWN)} |")


if __name__ == "__main__":
    main()
