"""A pretended CUDA device, where there is none: host memory that must not mix with the host's.

Values are real and computed on the CPU; what is "on the device" is known by its memory. A mistake
that only a GPU would show shows here: a tensor left on the host, an index of the other side, pixels
read without copying them back.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)
# Copies between both sides, and indices, which CUDA takes from the host too.
_ACROSS = {
    f"aten::{name}" for name in ("copy_", "_to_copy", "set_", "index", "index_put", "index_put_")
}
_READS = {Tensor.item, Tensor.tolist, Tensor.__float__, Tensor.__int__, Tensor.__bool__}


class MixedError(RuntimeError):
    """What CUDA refuses: both sides in one operation, or memory that numpy cannot see."""


class _Memory:
    """Which storages are the device's."""

    def __init__(self) -> None:
        self._known: dict[int, StorageWeakRef] = {}

    def take(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._known[storage._cdata] = StorageWeakRef(storage)

    def holds(self, tensor: Tensor) -> bool:
        found = self._known.get(tensor.untyped_storage()._cdata)
        return found is not None and not found.expired()


class _Operations(TorchDispatchMode):
    """Every operation: its tensors must be of one side, which is its result's."""

    def __init__(self, memory: _Memory) -> None:
        super().__init__()
        self._memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        there = [t for t in given if self._memory.holds(t)]
        result = func(*args, **(kwargs or {}))
        if not there:
            return result
        name = func._schema.name
        mixed = [t for t in given if t.dim() and not self._memory.holds(t)]
        if mixed and name not in _ACROSS:
            raise MixedError(f"{name}: {[(tuple(t.shape), t.dtype) for t in mixed]} on the host")
        if name != "aten::copy_":
            for made in tree_flatten(result)[0]:
                if isinstance(made, Tensor):
                    self._memory.take(made)
        return result


class Pretended(TorchFunctionMode):
    """Inside, in this thread, ``cuda`` is a device.

    Attributes:
        reads: values of the device that the host has looked at, each of which waits for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._memory = _Memory()
        self._open = contextlib.ExitStack()
        self.reads = 0

    def __enter__(self) -> Pretended:
        self._open.enter_context(_Operations(self._memory))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._open.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return DEVICE if self.holds(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return self.holds(args[0])
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and self.holds(first):
            if func is Tensor.numpy:
                raise MixedError("a tensor of the device has no numpy array; copy it first")
            self.reads += func in _READS
        if func in (Tensor.pin_memory, Tensor.record_stream):
            return first
        kwargs.pop("pin_memory", None)
        if func is Tensor.__deepcopy__:
            result = func(*args, **kwargs)
            if self.holds(args[0]):
                self._memory.take(result)
            return result
        return self._placed(func, first, args, kwargs)

    def holds(self, tensor: Tensor) -> bool:
        """Whether it is on the device."""
        return self._memory.holds(tensor)

    def _placed(self, func: Any, first: Tensor | None, args: Any, kwargs: Any) -> Any:
        """The call with the CPU for the device, and its result on the side that was asked for."""
        asked: list[str] = ["cpu"] if func is Tensor.cpu else []

        def here(value: Any) -> Any:
            if value is None or torch.device(value).type not in ("cpu", "cuda"):
                return value
            asked.append(torch.device(value).type)
            return torch.device("cpu")

        plain = {name: value for name, value in kwargs.items() if name == "device"}
        kwargs |= tree_map(here, plain)
        if func is Tensor.to:
            args = (
                args[0],
                *(here(a) if isinstance(a, torch.device | str) else a for a in args[1:]),
            )
        result = func(*args, **kwargs)
        if not asked or not isinstance(result, Tensor):
            return result
        was = first is not None and self.holds(first)
        if first is not None and was != (asked[-1] == "cuda"):
            with torch._C._DisableTorchDispatch():  # a copy is of neither side
                result = result.clone()
        if asked[-1] == "cuda":
            self._memory.take(result)
        return result
