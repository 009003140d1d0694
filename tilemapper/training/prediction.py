"""What a model makes of one whole image, for evaluation: its picture, and its expected colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tilemapper.networks.model import Model
from tilemapper.training.assembly import whole_float32
from tilemapper.training.images import RgbImage


@dataclass(frozen=True)
class Prediction:
    """Generated images of one ground, each (h, w, 3) uint8.

    ``picture``: the colours that `render` writes: for a palette model those of the most likely
    class. ``expected``: a palette model's mean colour under its probabilities, None otherwise.
    """

    picture: RgbImage
    expected: RgbImage | None = None


Predict = Callable[[RgbImage], Prediction]


def whole_image_predictor(model: Model, *, device: str = "cpu") -> Predict:
    """Runs the generator on whole images in one pass in float32, without tiles.

    Images are reflected to multiples of the model's tile and cut back. A network with a wide
    view sees other surroundings this way than in tiles, which `tilemapper render` gives it.
    """
    generator = model.generator().to(device)
    palette = torch.tensor([c.colour for c in model.card.palette], dtype=torch.float32)

    @torch.inference_mode()
    def predict(image: RgbImage) -> Prediction:
        height, width = image.shape[:2]
        with whole_float32():
            output = generator(_to_network(image, model.card.tile).to(device))
        output = output[0, :, :height, :width].float().cpu()
        if model.card.head == "rgb":
            return Prediction(_to_image(((output + 1) * 127.5).permute(1, 2, 0)))
        shares = output.softmax(0).permute(1, 2, 0)  # (h, w, K)
        return Prediction(_to_image(palette[shares.argmax(-1)]), _to_image(shares @ palette))

    return predict


def at_size(predict: Predict, shorter: int) -> Predict:
    """A predictor that first brings images to this shorter side, as training with `resize` did.

    Its predictions have that size, and are judged at it.
    """

    def predict_resized(image: RgbImage) -> Prediction:
        height, width = image.shape[:2]
        factor = shorter / min(height, width)
        if factor == 1:
            return predict(image)
        x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
        size = (round(height * factor), round(width * factor))
        x = F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)
        return predict(_to_image(x[0].permute(1, 2, 0)))

    return predict_resized


def _to_network(image: RgbImage, multiple: int) -> Tensor:
    """(h, w, 3) uint8 -> (1, 3, H, W) in [-1, 1], reflected below and right."""
    height, width = image.shape[:2]
    gaps = [(0, -height % multiple), (0, -width % multiple), (0, 0)]
    padded = np.pad(image, gaps, mode="symmetric")
    return torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 127.5 - 1


def _to_image(levels: Tensor) -> RgbImage:
    image: RgbImage = levels.round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
    return image
