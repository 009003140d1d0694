"""Everything that a user of tilemapper can act on: one root, one class for each kind.

A message is one line: ``WHICH: what was found, what is needed; what to do``. The command line
prints it after ``error: `` and leaves with the class's exit code.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


class TilemapperError(Exception):
    """Root of all errors that tilemapper raises on purpose. ``exit_code`` is the command's."""

    exit_code = 1


class OptionError(TilemapperError, ValueError):
    """An option's value cannot be used, whatever the input."""

    exit_code = 2


class RasterError(TilemapperError, OSError):
    """A raster cannot be opened, read, or understood."""


class ServerError(RasterError):
    """The server that a raster lies on does not answer: the same command can end well later."""

    exit_code = 75


class RasterChangedError(RasterError):
    """A raster was written to while it was read."""


class TargetError(TilemapperError, OSError):
    """An output cannot be written there, or may not be replaced."""


class ModelError(TilemapperError, ValueError):
    """A model, its card or its weights are missing, damaged, or of another kind."""


class StagingError(TilemapperError, RuntimeError):
    """The blocks staged beside an output belong to another plan or are damaged."""


class OtherPlanError(StagingError):
    """What is staged beside an output belongs to another plan, or has blocks of another size."""


class DeviceError(TilemapperError, RuntimeError):
    """The device is missing, or too small for one tile."""


class PairError(TilemapperError, ValueError):
    """Training pairs are missing, damaged, or do not fit together."""


class JobError(TilemapperError, ValueError):
    """A job file (training or archive) cannot be understood."""


class TrainingError(TilemapperError, RuntimeError):
    """Training cannot go on: a loss is not finite, or a checkpoint does not fit."""


class TryAgainError(TilemapperError, RuntimeError):
    """Nothing is wrong with the input: the same command can end well later. Nothing is lost."""

    exit_code = 75


class LockedError(TryAgainError):
    """Another run holds the output."""


class DiskFullError(TryAgainError):
    """The disk is full, or a quota is used up."""


class ShortageError(TryAgainError):
    """The machine lets this process have no more open files, or threads."""


class NoWorkerError(TryAgainError):
    """No worker is left to render on."""


class DeviceLostError(TryAgainError, DeviceError):
    """A GPU has failed under the program; in this process nothing runs on it any more."""


class Interrupted(BaseException):
    """A signal asked the program to end.

    A BaseException, so that no ``except Exception`` on the way can swallow it.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.exit_code = 128 + signal_number


def interruption_behind(error: BaseException | None) -> Interrupted | None:
    """The interruption that an error was made of, by a library that caught it; None if none was."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error


def shortage(error: BaseException) -> TilemapperError | None:
    """What a process that has met its limits means to a user; None for any other error."""
    said = " ".join(str(error).split()) or type(error).__name__
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OSError) and number in (errno.EMFILE, errno.ENFILE):
        return too_many_files(error.filename or "this process", os.strerror(errno.EMFILE))
    if isinstance(error, RuntimeError) and "can't start new thread" in said:
        return ShortageError(
            "no more threads may be started here; allow more with ulimit -u or end other programs, "
            "then run the same command again"
        )
    in_torch = isinstance(error, RuntimeError) and "can't allocate memory" in said
    if isinstance(error, MemoryError) or in_torch or number == errno.ENOMEM:
        return DeviceError(f"not enough memory ({said}); free some, or ask for less at once")
    return None


def too_many_files(subject: str | Path, said: str) -> ShortageError | None:
    """The error of a library that says in words that no more files may be opened; None else.

    GDAL does, in the errors that it has for damaged files too.
    """
    if os.strerror(errno.EMFILE) not in said:  # ENFILE's begins alike
        return None
    return ShortageError(
        f"{subject}: {os.strerror(errno.EMFILE)}; allow more with ulimit -n, then run the same "
        "command again"
    )


# How torch begins what a GPU's driver and libraries tell it.
_OF_A_GPU = (
    "CUDA error", "CUDA driver error", "CUDA unknown error", "No CUDA GPUs are available",
    "Triton Error [CUDA]", "cuDNN error", "NCCL error",
)  # fmt: skip
# How they say that there is not enough memory: the driver, cuBLAS and cuDNN for themselves, and for
# what any of a convolution's algorithms needs beside its result. The last is also all that is said
# of a GPU for which this build of torch has no convolutions.
NO_ALGORITHM = "unable to find an engine to execute"
_LACKS_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED", NO_ALGORITHM)


def lacks_device_memory(error: BaseException) -> bool:
    """Whether a library says that a device has not enough memory.

    Told by its words, as all of `device_fault`: whoever asks may not have loaded torch.
    """
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in _LACKS_MEMORY)
    )


def no_algorithm(device: str) -> str:
    """What to say where cuDNN finds no way to compute a convolution of a single tile."""
    return (
        f"{device}: cuDNN finds no algorithm there; free some memory, install a build of torch "
        "that has code for this GPU, or use --device cpu"
    )


def device_fault(
    error: BaseException, device: str = "the GPU", again: str = "run the same command again"
) -> DeviceError | None:
    """What a library's error about a GPU means to a user; None where it is about something else.

    Args:
        error: as it was raised.
        device: which one it is.
        again: how what was done goes on, after a GPU has failed.
    """
    if isinstance(error, TilemapperError) or not isinstance(error, RuntimeError):
        return None
    if lacks_device_memory(error):
        if NO_ALGORITHM in str(error):
            return DeviceError(no_algorithm(device))
        return DeviceError(
            f"{device}: not enough memory; free some, ask for less at once, or use --device cpu"
        )
    said = (str(error).splitlines() or [""])[0]
    if not any(words in said for words in _OF_A_GPU):
        return None
    if "no kernel image" in said:
        return DeviceError(
            f"{device}: this build of torch has no code for it; install one that has, or use "
            "--device cpu"
        )
    return DeviceLostError(
        f"{device}: failed ({said}); look at it with nvidia-smi, then {again}; if it fails again, "
        "report it with the traceback of --debug"
    )
