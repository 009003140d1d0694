"""FID and KID, from the features of a network that the user has as an ONNX file.

Nothing is downloaded. ONNX and no pickle, since the file holds data and no program. Published
figures take Inception-v3's 2048 pool features, so only with those are they comparable.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilemapper.errors import OptionError
from tilemapper.training.evaluate import at_protocol_size
from tilemapper.training.images import RgbImage

Features = NDArray[np.float64]


class FeatureDistances:
    """Collects features of generated and true images, resized to 256, and compares them.

    Args of the constructor:
        path: ONNX network, float32 (n, 3, 256, 256) in 0..255 -> (n, d).

    Raises:
        OptionError: the file is no such network, or onnxruntime is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise OptionError(
                "--weights: onnxruntime is not installed; pip install 'tilemapper[onnx]'"
            ) from error
        try:
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            self._input = self._session.get_inputs()[0].name
            self._features(np.zeros((256, 256, 3), np.uint8))
        except Exception as error:  # onnxruntime raises classes of its own for every fault
            raise OptionError(
                f"--weights {path}: is no ONNX network from (n, 3, 256, 256) in 0..255 to (n, d) "
                f"features ({' '.join(str(error).split())[:200]}); export an Inception-v3 that way"
            ) from error
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
