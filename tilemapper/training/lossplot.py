"""``loss.png`` of a run: its losses and held-out figures at a glance."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from tilemapper.extras import of_extra
from tilemapper.raster.atomic import write_bytes_atomic
from tilemapper.training.recording import METRICS_NAME, read_events

PLOT_NAME = "loss.png"
NO_LOSSES = frozenset({"kind", "step", "images_per_s", "waiting_share", "minutes"})


def write_loss_plot(folder: Path) -> Path:
    """Writes ``loss.png`` of the events of a run folder, and returns it.

    Raises:
        DiskFullError, TargetError: it cannot be written.
    """
    target = folder / PLOT_NAME
    write_bytes_atomic(target, loss_plot(read_events(folder / METRICS_NAME)))
    return target


def loss_plot(events: list[dict[str, Any]]) -> bytes:
    """A PNG of the losses, and below of the held-out figures between 0 and 1, over steps."""
    with of_extra("train"):
        from matplotlib.figure import Figure  # half a second, for runs only

    figure = Figure(figsize=(10, 7), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    for kind, axes, largest in (("train", above, None), ("held_out", below, 1.5)):
        chosen = [event for event in events if event["kind"] == kind]
        for name in dict.fromkeys(n for e in chosen for n in e if n not in NO_LOSSES):
            points = [(e["step"], e[name]) for e in chosen if e.get(name) is not None]
            if points and (largest is None or max(v for _, v in points) <= largest):
                style = "--" if name.endswith("_invented") else "-"  # more lines than colours
                axes.plot(*zip(*points, strict=True), style, label=name, marker=".")
        if axes.lines:
            axes.legend(fontsize="small", ncols=2)
        axes.set_ylabel("loss" if kind == "train" else "held-out figure")
    below.set_xlabel("step")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
