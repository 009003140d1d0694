"""Convolution weights laid out once for the CPU, instead of at every call.

oneDNN computes with weights in a blocked order that depends on the shapes. PyTorch's eager
convolutions reorder them on every call, which costs the small inner layers of a U-Net more than
their arithmetic, and makes small batches dear although they fit the cache better. The operators
used here are those that torch.compile's freezing emits on CPU (`torch.ops.mkldnn`); they are not
public, so their result is compared with the eager network's and nothing is changed where they are
missing or give other bits. A ReLU or ReLU6 right after a convolution is taken into it: it commutes
with the rounding of the result, and a pass over the memory less is made (5 % of a residual U-Net's
time).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

_OPERATORS = (
    "_convolution_pointwise",
    "_convolution_transpose_pointwise",
    "_reorder_convolution_weight",
    "_reorder_convolution_transpose_weight",
)
_Activation = tuple[str, list[float], str]
_NO_ACTIVATION: _Activation = ("none", [], "")
# As oneDNN knows them: ReLU6 is a hard tanh between 0 and 6.
_ACTIVATIONS: dict[object, _Activation] = {
    functional.relu: ("relu", [], ""),
    functional.relu6: ("hardtanh", [0.0, 6.0], ""),
}


class PackedConv(nn.Module):
    """A convolution, plain or transposed, with its weights in oneDNN's order for one input shape.

    Other shapes are computed too, only not as fast.
    """

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, shape: list[int]) -> None:
        super().__init__()
        self.bias = conv.bias
        self.activation = _NO_ACTIVATION
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
        """(n, in, h, w) -> (n, out, h', w'), as the convolution it was made from, and its ReLU."""
        out: Tensor = self.apply_conv(
            x, self.packed, self.bias, self.pads, *self.rest, *self.activation
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
    with _several_threads():
        return _packed_if_same(network, batch)


@contextlib.contextmanager
def _several_threads() -> Iterator[None]:
    """More than one thread for this thread's calls.

    On one PyTorch leaves float32 convolutions of 1 x 1 in batches of less than 16 to a kernel of
    its own, with other last bits. What is packed, and so every pixel, would then hang on how many
    cores a process has, and on the batch; the packed operators know neither.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _packed_if_same(network: nn.Module, batch: Tensor) -> nn.Module:
    wanted, shapes = _watched(network, batch)
    try:
        packed = _replaced(network, shapes)
        fused = _fused(packed)
        if torch.equal(fused(batch), wanted):
            return fused
        for conv in packed.modules():
            if isinstance(conv, PackedConv):
                conv.activation = _NO_ACTIVATION
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


class _Tracer(fx.Tracer):
    """Looks into every module but packed convolutions, identities too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Identity):
            return False
        return isinstance(m, PackedConv) or super().is_leaf_module(m, module_qualified_name)


def _fused(packed: nn.Module) -> nn.Module:
    """The network with each activation that follows a packed convolution alone taken into it."""
    try:
        graph = _Tracer().trace(packed)
    except (TypeError, ValueError, RuntimeError):  # its path depends on the values
        return packed
    for node in list(graph.nodes):
        before = node.args[0] if node.args else None
        if node.target not in _ACTIVATIONS or not isinstance(before, fx.Node):
            continue
        if before.op != "call_module" or len(before.users) > 1:
            continue
        conv = packed.get_submodule(str(before.target))
        if isinstance(conv, PackedConv):
            conv.activation = _ACTIVATIONS[node.target]
            node.replace_all_uses_with(before)
            graph.erase_node(node)
    return fx.GraphModule(packed, graph)
