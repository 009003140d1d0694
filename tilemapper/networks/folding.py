"""Folding of frozen BatchNorm into the convolution before it: same function, fewer steps."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tilemapper.networks.layers import ConvNorm


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy in eval mode whose BatchNorms (running statistics) live in the convolutions.

    Exact up to the rounding of the network's dtype; computed in float64. Instance norms depend
    on the image and stay. The given network is not changed.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            _fold(module, module.norm)
    return folded


@torch.no_grad()
def _fold(module: ConvNorm, norm: nn.BatchNorm2d) -> None:
    conv = module.conv
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.double()
    before = 0.0 if conv.bias is None else conv.bias.double()
    bias = (before - norm.running_mean.double()) * scale
    if norm.affine:
        bias = bias + norm.bias.double()
    # A transposed convolution has its output channels in the second place.
    shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter((conv.weight.double() * scale.view(shape)).to(dtype))
    conv.bias = nn.Parameter(bias.to(dtype))
    module.norm = nn.Identity()
