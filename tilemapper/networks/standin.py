"""Generators without weights, with a known answer: oracles for tests, and pipeline benchmarks."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from tilemapper.networks.arguments import ConstantArguments, Head, IdentityArguments


class Identity(nn.Module):
    """Gives back its input: (n, 3, h, w) -> the same.

    With K other channels (a palette head) the logits are the bands in turn, repeated.
    """

    def __init__(self, arguments: IdentityArguments, *, channels: int, head: Head) -> None:
        super().__init__()
        self.sleep_s = arguments.sleep_s
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.sleep_s:
            time.sleep(self.sleep_s)
        bands = x.shape[1]
        if bands == self.channels:
            return x
        return x.repeat(1, -(-self.channels // bands), 1, 1)[:, : self.channels]


class Constant(nn.Module):
    """One answer everywhere: (n, bands, h, w) -> (n, channels, h, w).

    An rgb head gives ``value / 127.5 - 1``; a palette head gives class ``value`` a logit of 20
    and all others 0.
    """

    def __init__(self, arguments: ConstantArguments, *, channels: int, head: Head) -> None:
        super().__init__()
        self.value = arguments.value
        self.channels = channels
        self.palette = head == "palette"

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        shape = (x.shape[0], self.channels, *x.shape[2:])
        if not self.palette:
            return torch.full(shape, self.value / 127.5 - 1, dtype=x.dtype, device=x.device)
        logits = torch.zeros(shape, dtype=x.dtype, device=x.device)
        logits[:, self.value % self.channels] = 20.0
        return logits
