"""``loss.png`` and ``report.html`` of a run: what was trained, how it went, what it paints."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

from tilemapper.raster.atomic import write_bytes_atomic, write_text_atomic
from tilemapper.training.config import TrainingJob
from tilemapper.training.jobtext import job_text
from tilemapper.training.recording import METRICS_NAME, read_events

NO_LOSSES = frozenset({"kind", "step", "images_per_s", "waiting_share", "minutes"})
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}}
img{{max-width:100%}}td,th{{padding:.1em .8em;text-align:right;border-bottom:1px solid #ccc}}
td:first-child,th:first-child{{text-align:left}}pre{{background:#f4f4f4;padding:1em}}</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_report(folder: Path, job: TrainingJob, figures: dict[str, float]) -> Path:
    """Writes ``loss.png`` and ``report.html``, which needs no other file, and returns the latter.

    Args:
        folder: the run folder.
        job: what was trained.
        figures: of the exported model.
    """
    events = read_events(folder / METRICS_NAME)
    plot = loss_plot(events)
    write_bytes_atomic(folder / "loss.png", plot)
    body = [
        "<h2>Held-out figures of the exported model</h2>",
        _table(["figure", "value"], [[n, f"{v:.4g}"] for n, v in figures.items()]),
        "<h2>Losses and figures</h2>",
        _image(plot, "losses and held-out figures over steps"),
    ]
    samples = sorted((folder / "samples").glob("step_*.png"), key=_step)
    for path in dict.fromkeys(samples[:1] + samples[-1:]):
        body += [
            f"<h2>Step {_step(path)}: satellite, generated, true, difference</h2>",
            _image(path.read_bytes(), f"samples of step {_step(path)}"),
        ]
    body += ["<h2>Job</h2>", f"<pre>{html.escape(job_text(job))}</pre>"]
    page = folder / "report.html"
    write_text_atomic(page, PAGE.format(title=html.escape(f"Run {job.name}"), body="\n".join(body)))
    return page


def loss_plot(events: list[dict[str, Any]]) -> bytes:
    """A PNG of the losses, and below of the held-out figures between 0 and 1, over steps."""
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


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = ["<tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in head) + "</tr>"]
    cells += ["<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows]
    return f"<table>{''.join(cells)}</table>"


def _image(png: bytes, words: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'


def _step(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])
