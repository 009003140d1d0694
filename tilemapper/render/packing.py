"""Convolution weights laid out once for the CPU, instead of at every call.

oneDNN computes with weights in a blocked order that depends on the shapes. PyTorch's eager
convolutions reorder them on every call, which costs the small inner layers of a U-Net more than
their arithmetic, and makes small batches dear although they fit the cache better. The operators
used here are those that torch.compile's freezing emits on CPU (`torch.ops.mkldnn`); they are not
public, so their result is compared with the eager network's and nothing is changed where they are
missing or give other bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

_OPERATORS = (
    "_convolution_pointwise",
    "_convolution_transpose_pointwise",
    "_reorder_convolution_weight",
    "_reorder_convolution_transpose_weight",
)
_NO_ACTIVATION: tuple[str, list[float], str] = ("none", [], "")


class PackedConv(nn.Module):
    """A convolution, plain or transposed, with its weights in oneDNN's order for one input shape.

    Other shapes are computed too, only not as fast.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, shape: list[int]) -> None:
        super().__init__()
        self.bias = conv.bias
        # Paddings of convolutions that are packed are numbers: see `_packable`.
        self.pads = [int(pad) for pad in conv.padding]
        steps = (list(conv.stride), list(conv.dilation), conv.groups)
        ops = torch.ops.mkldnn
        if isinstance(conv, nn.ConvTranspose2d):
            self.rest = [list(conv.output_padding), *steps]
            reorder = ops._reorder_convolution_transpose_weight
            self.apply_conv = ops._convolution_transpose_pointwise
        else:
            self.rest = list(steps)
            reorder = ops._reorder_convolution_weight
            self.apply_conv = ops._convolution_pointwise
        self.packed = reorder(conv.weight, self.pads, *self.rest, shape)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, h', w'), as the convolution it was made from."""
        out: Tensor = self.apply_conv(
            x, self.packed, self.bias, self.pads, *self.rest, *_NO_ACTIVATION
        )
        return out


@torch.inference_mode()
def packed_for_cpu(network: nn.Module, batch: Tensor) -> nn.Module:
    """The network with packed convolutions where that gives the same bits, else as it is.

    Args:
        network: in eval mode on the CPU, norms folded; its weights may be taken over.
        batch: (n, bands, h, w) of the shape and dtype of every later call.
    """
    if not all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS):
        return network
    wanted, shapes = _watched(network, batch)
    try:
        packed = _replaced(network, shapes)
        same = torch.equal(packed(batch), wanted)
    except RuntimeError:  # these operators refuse what this machine's oneDNN cannot do
        return network
    return packed if same else network


def _packable(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return False
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _watched(network: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, list[int]]]:
    """The network's output, and the input shape of each convolution that can be packed, by name."""
    shapes: dict[str, list[int]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, given, __: shapes.update({name: list(given[0].shape)})

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if _packable(module)
    ]
    try:
        return network(batch), shapes
    finally:
        for hook in hooks:
            hook.remove()


def _replaced(network: nn.Module, shapes: dict[str, list[int]]) -> nn.Module:
    """A copy of the network that shares its parameters, with the named convolutions packed."""
    shared = {id(parameter): parameter for parameter in network.parameters()}
    packed = copy.deepcopy(network, dict(shared))
    for name, shape in shapes.items():
        above, _, last = name.rpartition(".")
        conv = packed.get_submodule(name)
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
        setattr(packed.get_submodule(above), last, PackedConv(conv, shape))
    return packed
