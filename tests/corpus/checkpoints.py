"""Checkpoints of other projects that are none, are damaged, or carry code."""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.networks.foreign import JunyanzUNet, randomise

Made = Iterator[tuple[str, bytes]]


class Calls:
    """Pickled, it is a call: what unpickles it makes the call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def good() -> dict[str, torch.Tensor]:
    """The state of a small U-Net in the dialect of junyanz."""
    torch.manual_seed(0)
    return {key: t.clone() for key, t in randomise(JunyanzUNet(width=1)).state_dict().items()}


def saved(value: Any, *, legacy: bool = False) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def malicious(ran: Path) -> Made:
    """Code that would make the file ``ran`` if it were run."""
    import builtins
    import importlib
    import os
    import shutil
    import subprocess

    python = f"open({str(ran)!r}, 'w').close()"
    calls = {
        "open": Calls(open, str(ran), "w"),
        "os.system": Calls(os.system, f"touch {ran}"),
        "exec": Calls(builtins.exec, python),
        "eval": Calls(builtins.eval, python),
        "subprocess": Calls(subprocess.call, ["touch", str(ran)]),
        "copy": Calls(shutil.copy, __file__, str(ran)),
        "import": Calls(importlib.import_module, "antigravity"),
        "torch.load": Calls(torch.load, str(ran)),
        "numpy": Calls(np.save, str(ran), 1),
        "mkdir": Calls(os.mkdir, str(ran)),
    }
    for name, call in calls.items():
        yield f"plain pickle of {name}", pickle.dumps(call)
    for name in ("open", "os.system", "exec"):
        state = good() | {"more": calls[name]}
        yield f"state dict with {name}", saved(state)
        yield f"older state dict with {name}", saved(state, legacy=True)
    for protocol in (0, 1, 2, 3):
        data = pickletools.optimize(pickle.dumps(calls["open"], protocol))
        yield f"pickle of protocol {protocol}", data
    keyed = {"state_dict": good(), "optimizer": {"lr": calls["exec"]}}
    yield "code beside the state dict", saved(keyed)
    yield "code as a key", saved({calls["open"]: torch.zeros(1)})
    yield "a whole module", saved(randomise(JunyanzUNet(width=1)))
    ordered = OrderedDict(good())
    ordered._metadata = calls["open"]  # type: ignore[attr-defined]
    yield "code in the metadata", saved(ordered)
    yield "code in two pickles", pickle.dumps(1) + pickle.dumps(calls["open"])
    yield "code in gzip", gzip.compress(pickle.dumps(calls["open"]))
    objects = io.BytesIO()
    np.save(objects, np.array([calls["open"]], object), allow_pickle=True)
    yield "code in an array of objects", objects.getvalue()
    for name in ("../../escaped", "/tmp/escaped", "archive/../../escaped"):
        yield f"zip with {name}", _zip({"archive/data.pkl": pickle.dumps(calls["open"]), name: b""})
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"code"))
        yield f"tar with {name}", tar.getvalue()
    script = {"a/constants.pkl": pickle.dumps(calls["open"]), "a/code/x.py": b"def f(): pass",
              "a/data.pkl": pickle.dumps(calls["open"]), "a/version": b"3"}  # fmt: skip
    yield "a script archive", _zip(script)


def _zip(members: dict[str, bytes], *, packed: bool = False) -> bytes:
    stream = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def damaged() -> Made:
    """Cut, flipped, packed, and lying ones."""
    state = good()
    whole, older = saved(state), saved(state, legacy=True)
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        yield f"{share:.1%} of it", whole[: int(share * len(whole))]
        yield f"{share:.1%} of an older one", older[: int(share * len(older))]
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    yield "one bit flipped", bytes(flipped)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    yield "packed members", _zip(members, packed=True)
    bomb = {name: bytes(2**28) if name.endswith("/0") else data for name, data in members.items()}
    yield "a member that unpacks to 256 MiB", _zip(bomb, packed=True)
    yield "no pickle in it", _zip({n: d for n, d in members.items() if "pkl" not in n})
    yield "an empty zip", _zip({})
    yield "noise", np.random.default_rng(1).bytes(5000)
    yield "text", b"no checkpoint at all"
    yield "nested lists", b"\x80\x02" + b"](" * 100_000 + b"."
    yield "a number of 2^31 bytes", b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1) + b"."
    yield "a text of 2^40 bytes", b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"."


def wrong() -> Made:
    """Sound archives whose content is no generator that could be used."""
    state = good()
    first = "model.model.0.weight"
    for name, tensor in {
        "NaN": torch.full_like(state[first], float("nan")),
        "infinity": torch.full_like(state[first], float("inf")),
        "whole numbers": state[first].long(),
        "complex numbers": state[first].to(torch.complex64),
        "floats of 8 bits": state[first].to(torch.float8_e4m3fn),
        "another shape": torch.zeros(1, 3, 5, 5),
        "no axis": torch.zeros(()),
        "nothing": torch.zeros(0),
        "a sparse tensor": state[first].to_sparse(),
        "a quantised tensor": _quantised(state[first]),
        "an empty shell": torch.empty(state[first].shape, device="meta"),
    }.items():
        yield f"a weight of {name}", saved(state | {first: tensor})
    shells = {key: torch.empty(t.shape, device="meta") for key, t in state.items()}
    yield "nothing but shells", saved(shells)
    wide = _widened(2000)
    yield "a network of 2000 channels in one number", saved(wide)
    yield "a weight too many", saved(state | {"surplus": torch.zeros(1)})
    yield "a weight too few", saved({key: t for key, t in state.items() if key != first})
    yield "keys that are numbers", saved({1: torch.zeros(1)})
    yield "values that are text", saved({"a": "b"})
    yield "a list", saved([torch.zeros(1)])
    yield "a tensor", saved(torch.zeros(3))
    yield "an empty state", saved({})
    yield "a state in a state", saved({"state_dict": {"state_dict": state}})
    yield "5,000 wrappers", saved({"module." * 5000 + "a": torch.zeros(1)})
    yield "keys that steer a terminal", saved({"\x1b[2J\x07\nerror: b": torch.zeros(1)})
    yield "a discriminator", saved({"model.0.weight": torch.zeros(64, 6, 4, 4)})


def _quantised(tensor: torch.Tensor) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def _widened(width: int) -> dict[str, torch.Tensor]:
    """A wide U-Net's state, all of whose tensors are one number, seen again and again."""
    with torch.device("meta"):
        shapes = {key: t.shape for key, t in JunyanzUNet(width=width).state_dict().items()}
    one = torch.ones(1)
    return {key: one.expand(shape) if shape else one[0] for key, shape in shapes.items()}
