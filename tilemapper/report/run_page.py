"""The page of a training run: curves, samples over time, figures, the network, a table of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from tilemapper.raster.webp import Picture
from tilemapper.report.curves import Points, curves_svg
from tilemapper.report.template import data_uri, fill, page_part, section, table

# What an event says besides losses and figures.
NO_FIGURES = frozenset({"kind", "step", "images_per_s", "waiting_share", "minutes"})
SHARE_TOP = 1.5  # figures that stay below this are drawn on one axis; others have one each


@dataclass(frozen=True)
class Layer:
    """One part of a network: its name, what it is, its output's shape, its parameters."""

    name: str
    kind: str
    shape: str
    parameters: int


@dataclass(frozen=True)
class RunPage:
    """What the page shows.

    Attributes:
        name: of the run, or of a sweep.
        events: lines of ``metrics.jsonl``.
        figures: of the exported model.
        samples: step and picture, ascending.
        sheets: contact sheets, name and picture.
        layers: of the generator.
        job: the job file's text.
        runs: of a sweep: name, figures and held-out events of each run.
    """

    name: str
    events: Sequence[Mapping[str, Any]] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[tuple[int, Picture]] = ()
    sheets: Sequence[tuple[str, Picture]] = ()
    layers: Sequence[Layer] = ()
    job: str = ""
    runs: Sequence[tuple[str, Mapping[str, float], Sequence[Mapping[str, Any]]]] = ()


def run_page(page: RunPage) -> str:
    """The whole page as HTML; all text from outside is escaped."""
    sections = [
        _runs(page),
        section(
            "Held-out figures of the exported model",
            _figures(page.figures) if page.figures else "",
        ),
        _curves(page.events),
        _samples(page.samples),
        section("Contact sheets", *(_sheet(*sheet) for sheet in page.sheets)),
        _network(page.layers),
        section("Job", f"<pre>{escape(page.job)}</pre>" if page.job else ""),
    ]
    parts = {
        "title": escape(page.name),
        "style": page_part("base.css") + page_part("run.css"),
        "sections": "\n".join(part for part in sections if part),
        "script": page_part("run.js"),
    }
    return fill(page_part("run.html"), parts)


def _figures(figures: Mapping[str, float]) -> str:
    rows = [(escape(name), _number(value)) for name, value in figures.items()]
    return table(("figure", "value"), rows, numbers=(1,))


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4g}"


def _series(events: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Points]:
    """Name -> (step, value) of the events of a kind."""
    found: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        if event.get("kind") == kind:
            for name, value in event.items():
                if name not in NO_FIGURES and isinstance(value, int | float):
                    found.setdefault(name, []).append((event["step"], value))
    return dict(found)


def _curves(events: Sequence[Mapping[str, Any]]) -> str:
    losses, held_out = _series(events, "train"), _series(events, "held_out")
    shares = {n: p for n, p in held_out.items() if max(y for _, y in p) <= SHARE_TOP}
    others = {n: p for n, p in held_out.items() if n not in shares}
    areas = {n: shares.pop(n) for n in [*shares] if n.endswith("_iou")}
    invented = {n: shares.pop(n) for n in [*shares] if n.endswith("_invented")}
    return section(
        "Curves",
        _chart("Losses in training", losses),
        _chart("Held-out figures", shares),
        _chart("Held-out areas of classes", areas),
        _chart("Held-out share of what is invented", invented),
        *(_chart(f"Held-out {name}", {name: points}) for name, points in others.items()),
    )


def _chart(title: str, curves: Mapping[str, Points]) -> str:
    drawn = curves_svg(curves, title=f"{title} over steps")
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}</figure>" if drawn else ""


def _samples(samples: Sequence[tuple[int, Picture]]) -> str:
    """One picture at a time, chosen with a slider; all of them on paper and without a script."""
    if not samples:
        return ""
    figures = "".join(
        f'<figure class="sample" data-step="{step}"><img alt="Samples at step {step}: satellite, '
        f'generated, true, difference" src="{data_uri(picture)}"><figcaption>Step {step}: '
        "satellite, generated, true, difference</figcaption></figure>"
        for step, picture in samples
    )
    slider = (
        '<p class="scrub" hidden><label for="scrub">Step</label> <input type="range" id="scrub" '
        f'min="0" max="{len(samples) - 1}" value="{len(samples) - 1}" step="1"> '
        '<output id="scrub-step"></output> <button type="button" id="play">Play</button></p>'
    )
    return section(
        "Samples over time",
        f'{slider if len(samples) > 1 else ""}<div id="samples">{figures}</div>',
    )


def _sheet(name: str, picture: Picture) -> str:
    words = escape(name)
    return (
        f'<figure><img alt="Contact sheet {words}: satellite, generated, true, difference" '
        f'src="{data_uri(picture)}"><figcaption>{words}</figcaption></figure>'
    )


def _network(layers: Sequence[Layer]) -> str:
    rows = [
        (escape(layer.name), escape(layer.kind), escape(layer.shape), f"{layer.parameters:,}")
        for layer in layers
    ]
    total = f"{sum(layer.parameters for layer in layers):,} parameters in the parts listed."
    heads = ("part", "kind", "output", "parameters")
    listed = table(heads, rows, caption=total, numbers=(3,)) if rows else ""
    return section("The network", listed)


def _runs(page: RunPage) -> str:
    """A sweep or an ablation: a row a run, the best of each figure marked, and curves over runs."""
    if not page.runs:
        return ""
    names = list(dict.fromkeys(name for _, figures, _ in page.runs for name in figures))
    best = {name: _best(name, [figures.get(name) for _, figures, _ in page.runs]) for name in names}
    rows = [
        (
            escape(run),
            *(
                f"<strong>{_number(figures.get(name))}</strong>"
                if len(page.runs) > 1 and figures.get(name) == best[name]
                else _number(figures.get(name))
                for name in names
            ),
        )
        for run, figures, _ in page.runs
    ]
    caption = "The best of each column stands out." if len(page.runs) > 1 else ""
    heads = ("run", *map(escape, names))
    listed = table(heads, rows, caption=caption, numbers=tuple(range(1, len(names) + 1)))
    charts = []
    for name in names:  # a single point a run is in the table already
        curves = {run: _series(events, "held_out").get(name, ()) for run, _, events in page.runs}
        if any(len(points) > 1 for points in curves.values()):
            charts.append(_chart(f"Held-out {name}", curves))
    return section("Runs", listed, '<div class="columns">', *charts, "</div>")


def _best(name: str, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and value == value]
    if not known:
        return None
    # As `tilemapper evaluate` has it: of these, less is better. Sharpness is best at 1.
    if name == "sharpness":
        return min(known, key=lambda value: abs(value - 1))
    return min(known) if name.endswith(("_invented", "rmse_gcgan", "loss")) else max(known)
