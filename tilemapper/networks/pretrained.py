"""What ImageNet taught an EfficientNet-Lite0, in terms of our encoder.

The checkpoint is the user's: nothing is fetched. Known is the layout of PyTorch ports that name
their layers as `efficientnet_pytorch` does (``_conv_stem``, ``_blocks.N._depthwise_conv``, ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tilemapper.errors import ModelError
from tilemapper.networks.efficientnet import STAGES, Encoder
from tilemapper.networks.importers import read_state
from tilemapper.networks.renderable import BANDS
from tilemapper.networks.weights import check_state
from tilemapper.paths import typed_path

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def read_encoder(checkpoint: Path) -> dict[str, Tensor]:
    """The state of an `Encoder` of three bands out of a checkpoint, no code run.

    What classifies in it (``_conv_head``, ``_bn1``, ``_fc``) is left out. Raises ModelError for a
    file that is damaged, holds code, or is of another network: of an EfficientNet-B0, which has
    all of these layers and more.
    """
    checkpoint = typed_path(checkpoint)
    theirs = read_state(checkpoint)
    places = {
        f"{ours}.{part}": key
        for ours, conv, norm in _layers()
        for part, key in _parts(conv, norm).items()
    }
    missing = [key for key in places.values() if key not in theirs]
    known = {*places.values()}
    surplus = [key for key in theirs if key not in known and not _is_left_out(key)]
    if missing or surplus:
        what = f"misses {missing[0]}" if missing else f"has {surplus[0]}"
        raise ModelError(
            f"{checkpoint}: no EfficientNet-Lite0 as efficientnet_pytorch names its layers, it "
            f"{what} ({len(missing)} missing, {len(surplus)} too many); give the file of one"
        )
    state = {ours: theirs[key] for ours, key in places.items()}
    with torch.device("meta"):
        wanted = Encoder(BANDS).state_dict()
    # How many batches a norm has seen; nothing is computed with it.
    counters = {key for key, tensor in wanted.items() if not tensor.is_floating_point()}
    floats = {key: tensor for key, tensor in wanted.items() if key not in counters}
    check_state(state, floats, name=str(checkpoint))
    return state | {key: torch.zeros((), dtype=torch.long) for key in counters}


def _is_left_out(key: str) -> bool:
    """Of the part that classifies, or a count of batches."""
    return key.startswith(("_conv_head.", "_bn1.", "_fc.")) or key.endswith(".num_batches_tracked")


def _parts(conv: str, norm: str) -> dict[str, str]:
    """Of one of our layers the parts, and where the checkpoint has them."""
    return {"conv.weight": f"{conv}.weight"} | {
        f"norm.{part}": f"{norm}.{part}" for part in _NORM_PARTS
    }


def _layers() -> Iterator[tuple[str, str, str]]:
    """Our layer, and the checkpoint's convolution and norm, from the stem to the last block."""
    yield "stem", "_conv_stem", "_bn0"
    block = 0
    for stage, (_, count, _, _, expansion) in enumerate(STAGES):
        for number in range(count):
            ours, theirs = f"stages.{stage}.{number}", f"_blocks.{block}"
            if expansion > 1:
                yield f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0"
            yield f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1"
            yield f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2"
            block += 1
