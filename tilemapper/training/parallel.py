"""Several processes started by ``torchrun``: one model, each with its share of the batch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tilemapper.errors import DeviceError


@dataclass(frozen=True)
class Processes:
    """This process among the others. ``world`` 1 means that there are no others."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0


def join_processes(device: torch.device) -> Processes:
    """Joins the group that torchrun describes in the environment; alone when there is none."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes()
    # Control messages are on the host and go through gloo, so that they never wait for a kernel.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if not dist.is_initialized():
        dist.init_process_group(backend)
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    return Processes(rank=dist.get_rank(), world=world, local_rank=local_rank)


def own_device(device: torch.device, processes: Processes) -> torch.device:
    """The device of this process: of several on a machine each has a GPU of its own.

    Raises:
        DeviceError: there are fewer GPUs than processes.
    """
    if device.type != "cuda" or processes.world == 1:
        return device
    count = torch.cuda.device_count()
    if processes.local_rank >= count:
        raise DeviceError(
            f"--device cuda: process {processes.local_rank + 1} of this machine, {count} CUDA "
            f"device(s) found, each needs its own; start {count} with torchrun's --nproc-per-node"
        )
    own = torch.device("cuda", processes.local_rank)
    torch.cuda.set_device(own)
    return own


def leave_processes(processes: Processes) -> None:
    """Ends the group."""
    if processes.world > 1:
        dist.destroy_process_group()


def average_gradients(module: nn.Module, processes: Processes) -> None:
    """Replaces each gradient by its mean over the processes, in one message.

    Done by hand rather than by DistributedDataParallel: a generator and a discriminator that use
    each other, one frozen in turn, break its book-keeping.
    """
    if processes.world == 1:
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes.world
    first = 0
    for gradient in gradients:
        gradient.copy_(flat[first : first + gradient.numel()].view_as(gradient))
        first += gradient.numel()


def from_first(values: Tensor, processes: Processes) -> Tensor:
    """The first process's ``values`` (on the host) in all of them."""
    if processes.world > 1:
        dist.broadcast(values, 0)
    return values


def mean_over(figures: dict[str, float], processes: Processes) -> dict[str, float]:
    """The mean of each figure over the processes, which must have the same ones."""
    if processes.world == 1 or not figures:
        return figures
    values = torch.tensor(list(figures.values()), dtype=torch.float64)
    dist.all_reduce(values)
    return dict(zip(figures, (values / processes.world).tolist(), strict=True))


def any_of(flag: bool, processes: Processes) -> bool:
    """Whether the flag is set in any process."""
    if processes.world == 1:
        return flag
    value = torch.tensor([float(flag)])
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


class _Summed(torch.autograd.Function):
    """The sum over the processes; its gradient is the sum of theirs, and so on: see wgan-gp."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total: Tensor = _Summed.apply(*gradients)  # type: ignore[no-untyped-call]
        return total


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes' batches, on any device.

    torch's SyncBatchNorm does the same on CUDA only, and tests run on CPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same."""
        if not self.training:
            return super().forward(x)
        n = x.numel() // x.shape[1]
        x32 = x.float()
        # Filled there: a number that is sent waits for all that the device has to do.
        count = x32.new_full((1,), n)
        sums = torch.cat([x32.sum((0, 2, 3)), x32.square().sum((0, 2, 3)), count])
        sums = _Summed.apply(sums)  # type: ignore[no-untyped-call]
        mean, square, total = sums[: x.shape[1]], sums[x.shape[1] : -1], sums[-1]
        mean = mean / total
        variance = (square / total - mean.square()).clamp(min=0)
        self._remember(mean.detach(), (variance * total / (total - 1)).detach())
        assert self.weight is not None and self.bias is not None
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        out: Tensor = x32 * scale[:, None, None] + shift[:, None, None]
        return out.to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def synchronised(network: nn.Module, processes: Processes) -> nn.Module:
    """The network with every batch norm replaced by a synchronised one, if there are others."""
    if processes.world > 1:
        _replace_norms(network, nn.BatchNorm2d, SyncedBatchNorm)
    return network


def unsynchronised(network: nn.Module) -> nn.Module:
    """The counterpart: for what one process does alone, in train mode too."""
    _replace_norms(network, SyncedBatchNorm, nn.BatchNorm2d)
    return network


def _replace_norms(
    network: nn.Module, old: type[nn.BatchNorm2d], new: type[nn.BatchNorm2d]
) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is old:
                device = child.running_mean.device if child.running_mean is not None else None
                norm = new(child.num_features, child.eps, child.momentum, device=device)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm.train(child.training))
