"""FID, KID and LPIPS, by a network that the user has as an ONNX file.

Nothing is downloaded. ONNX and no pickle, since the file holds data and no program. Published
figures take Inception-v3's 2048 pool features, so only with those are they comparable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import OptionError
from tilemapper.training.evaluate import at_protocol_size
from tilemapper.training.images import RgbImage

Features = NDArray[np.float64]


class Distances(Protocol):
    """Compares generated with true images by a network that the user has."""

    def add(self, made: RgbImage, true: RgbImage) -> None:
        """Takes in one generated and one true image, any size; both are resized to 256."""
        ...

    def figures(self) -> dict[str, float]:
        """The distances over all images, by name."""
        ...


def open_distances(path: Path) -> Distances:
    """FID and KID, or LPIPS, whichever the ONNX network at ``path`` is for.

    One input, float32 (n, 3, 256, 256) in 0..255 -> (n, d): features, for FID and KID. Two inputs,
    both float32 (n, 3, 256, 256) in -1..1 -> n values: a distance, for LPIPS.

    Raises:
        OptionError: the file is no such network, or onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise OptionError(
            "--weights: onnxruntime is not installed; pip install 'tilemapper[onnx]'"
        ) from error
    blank = np.zeros((256, 256, 3), np.uint8)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        kind = PerceptualDistance if len(session.get_inputs()) == 2 else FeatureDistances
        found: Distances = kind(session)
        found.add(blank, blank)
        return kind(session)
    except Exception as error:  # onnxruntime raises classes of its own for every fault
        raise OptionError(
            f"--weights {path}: is no ONNX network from (n, 3, 256, 256) in 0..255 to (n, d) "
            f"features, nor one from two images in -1..1 to a distance "
            f"({' '.join(str(error).split())[:200]}); export an Inception-v3 or LPIPS that way"
        ) from error


class FeatureDistances:
    """Collects features of generated and true images, and compares them: FID and KID."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._made: list[Features] = []
        self._true: list[Features] = []

    def add(self, made: RgbImage, true: RgbImage) -> None:
        """Takes in one generated and one true image, any size."""
        self._made.append(self._features(at_protocol_size(made)))
        self._true.append(self._features(at_protocol_size(true)))

    def figures(self) -> dict[str, float]:
        """{"fid", "kid"} over all images; NaN for fewer than two."""
        if len(self._made) < 2:
            return {"fid": float("nan"), "kid": float("nan")}
        made, true = np.stack(self._made), np.stack(self._true)
        return {"fid": frechet_distance(made, true), "kid": kernel_distance(made, true)}

    def _features(self, image: RgbImage) -> Features:
        batch = image.transpose(2, 0, 1)[None].astype(np.float32)  # (1, 3, 256, 256)
        features = np.asarray(self._session.run(None, {self._input: batch})[0], np.float64)
        if features.ndim != 2 or len(features) != 1:
            raise ValueError(f"output of shape {features.shape}")
        row: Features = features[0]
        return row


class PerceptualDistance:
    """The mean over all pairs of what a network says of generated and true image: LPIPS."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = [found.name for found in session.get_inputs()]
        self._values: list[float] = []

    def add(self, made: RgbImage, true: RgbImage) -> None:
        """Takes in one generated and one true image, any size."""
        pair = (at_protocol_size(image) / np.float32(127.5) - 1 for image in (made, true))
        batches = [image.transpose(2, 0, 1)[None] for image in pair]
        output = self._session.run(None, dict(zip(self._inputs, batches, strict=True)))[0]
        if np.size(output) != 1:
            raise ValueError(f"output of shape {np.shape(output)}")
        self._values.append(float(np.ravel(output)[0]))

    def figures(self) -> dict[str, float]:
        """{"lpips"}, NaN without images."""
        return {"lpips": float(np.mean(self._values)) if self._values else float("nan")}


def frechet_distance(first: Features, second: Features) -> float:
    """FID of two sets of features, (n, d) and (m, d)."""
    means = first.mean(0), second.mean(0)
    a = (first - means[0]) / np.sqrt(len(first) - 1)
    b = (second - means[1]) / np.sqrt(len(second) - 1)
    # tr sqrt(A'A B'B) is the sum of the singular values of AB': n x m, however large d is.
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(((means[0] - means[1]) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * cross)


def kernel_distance(first: Features, second: Features) -> float:
    """KID: unbiased squared MMD under the kernel (x.y / d + 1)^3, over all samples at once."""
    d = first.shape[1]

    def kernel(x: Features, y: Features) -> Features:
        values: Features = (x @ y.T / d + 1) ** 3
        return values

    def within(x: Features) -> float:
        k = kernel(x, x)
        return float((k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)))

    return within(first) + within(second) - 2 * float(kernel(first, second).mean())
