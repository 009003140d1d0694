"""Generators for other programs: ONNX with a dynamic batch, checked before it is handed out."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tilemapper.errors import ModelError
from tilemapper.networks.card import card_text
from tilemapper.networks.folding import fold_norms
from tilemapper.networks.model import Model

# Of values in [-1, 1], and of logits: about a hundredth of a grey level, 127.5 of which are 1.
_ALLOWED = 1e-4
# Deep networks of large weights lose more than that in float32, by torch too; another order of the
# same sums may lose some times as much.
_ALLOWED_TIMES_TORCH = 4.0
# protobuf, and with it a one-file ONNX model, ends there.
_ONNX_LIMIT_BYTES = 2_000_000_000


def onnx_model(model: Model) -> bytes:
    """The generator as an ONNX file: ``image`` (batch, bands, tile, tile) -> ``map``.

    float32, any batch, BatchNorm folded; values as the generator's own ([-1, 1] in, [-1, 1] or
    class logits out). The card is in the metadata under ``tilemapper_card``. What onnxruntime
    computes from the file is compared with torch in float64; raises ModelError if they differ by
    more than 1e-4 and more than 4 times what torch loses in float32, or if the ``onnx`` extra is
    not installed.
    """
    onnx, onnxruntime = _onnx_packages()
    generator = fold_norms(model.generator())
    size = sum(4 * tensor.numel() for tensor in generator.state_dict().values())
    if size > _ONNX_LIMIT_BYTES:
        raise ModelError(
            f"{model.card.name}: {size} bytes of weights, an ONNX file holds 2 GB; "
            "export a safetensors folder"
        )
    proto = _traced(generator, (model.card.bands, model.card.tile))
    onnx.helper.set_model_props(proto, {"tilemapper_card": card_text(model.card)})
    onnx.checker.check_model(proto)
    data = proto.SerializeToString()
    assert isinstance(data, bytes)
    difference, of_torch = _differences(onnxruntime, data, generator, model)
    allowed = max(_ALLOWED, _ALLOWED_TIMES_TORCH * of_torch)
    if not difference <= allowed:
        raise ModelError(
            f"{model.card.name}: its ONNX differs from torch by {difference:.2g}, "
            f"{allowed:.2g} is allowed; report this with the versions of `tilemapper info`"
        )
    return data


def _onnx_packages() -> tuple[ModuleType, ModuleType]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise ModelError(
            f"ONNX export: {error.name} is not installed; pip install 'tilemapper[onnx]'"
        ) from error
    return onnx, onnxruntime


def _traced(generator: nn.Module, shape: tuple[int, int]) -> Any:
    """The ONNX model of a generator; traced with a batch of 2, since 1 would be frozen in."""
    bands, tile = shape
    example = torch.zeros(2, bands, tile, tile)
    with _quiet():
        program = torch.onnx.export(
            generator,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            input_names=["image"],
            output_names=["map"],
            verbose=False,
        )
    if program is None:
        raise ModelError("ONNX export: torch returned no program; report this")
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's own warnings and prints from the user, who cannot act on them."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _differences(
    onnxruntime: ModuleType, data: bytes, generator: nn.Module, model: Model
) -> tuple[float, float]:
    """Largest difference of onnxruntime, and of torch in float32, from torch in float64.

    On batches of 1 and 3 of noise.
    """
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    exact = copy.deepcopy(generator).double()
    of_onnx, of_torch = 0.0, 0.0
    random = np.random.default_rng(0)
    for batch in (1, 3):
        shape = (batch, model.card.bands, model.card.tile, model.card.tile)
        image: NDArray[np.float32] = random.uniform(-1, 1, shape).astype(np.float32)
        (found,) = session.run(["map"], {"image": image})
        with torch.inference_mode():
            wanted = exact(torch.from_numpy(image).double()).numpy()
            usual = generator(torch.from_numpy(image)).numpy()
        of_onnx = np.maximum(of_onnx, np.abs(found - wanted).max())  # NaN stays
        of_torch = np.maximum(of_torch, np.abs(usual - wanted).max())
    return float(of_onnx), float(of_torch)
