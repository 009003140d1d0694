"""TensorBoard events, written in the calling thread: a full disk is an error at the event itself.

torch's SummaryWriter hands events to a thread of its own, where an error becomes a traceback on
stderr and the run goes on.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilemapper.extras import of_extra


class Board:
    """One file of events below ``folder``; events of ``purge_step`` and after lose their force.

    All methods raise OSError when the file cannot be written.
    """

    def __init__(self, folder: Path, *, purge_step: int | None) -> None:
        with of_extra("train"):  # half a second, for runs only
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.summary.writer.record_writer import RecordWriter
            from torch.utils.tensorboard import summary

        self._event: Any = Event
        self._summary: Any = summary
        folder.mkdir(parents=True, exist_ok=True)
        # Readers go by "tfevents" in the name, and take files in the order of their names.
        path = folder / f"events.out.tfevents.{time.time_ns():020d}.{os.getpid()}"
        self._file = path.open("ab")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            started = SessionLog(status=SessionLog.START)
            self._write(Event(step=purge_step, session_log=started))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Adds one figure."""
        self._write(self._event(step=step, summary=self._summary.scalar(name, value)))

    def image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """Adds an image, (h, w, 3) uint8."""
        picture = self._summary.image(name, image, dataformats="HWC")
        self._write(self._event(step=step, summary=picture))

    def flush(self) -> None:
        """Hands what was added to the system."""
        self._records.flush()

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
