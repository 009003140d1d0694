"""The sections of a comparison's page below its pictures: figures, in tables and words."""

from __future__ import annotations

from html import escape
from typing import Any

from tilemapper.report.comparison import Comparison
from tilemapper.report.lattice_lines import NONE
from tilemapper.report.looks import Look
from tilemapper.report.seam_verdict import seam_tone, seam_verdict, standing_out
from tilemapper.report.template import data_uri, facts_table, section, table


def compare_sections(found: Comparison, looks: list[Look]) -> str:
    """All sections as HTML; those that have nothing to say are left out."""
    return "\n".join(
        part
        for part in (
            _seams(found),
            _looks(looks),
            _truth(found),
            _classes(found),
            '<div class="columns">',
            section("The map", facts_table(_map_facts(found))),
            section("Plan and timings", facts_table(_plan_facts(found))),
            section("The model", facts_table(_model_facts(found))),
            "</div>",
        )
        if part
    )


def _seams(found: Comparison) -> str:
    seams = found.seams
    if seams.index is None:
        return section("Seams", "<p>The raster is too small for a line of the lattice.</p>")
    rows = [
        (
            f"{group.axis} lines, {group.kind}",
            str(group.lines),
            f"{group.index:+.3f}",
            f"{group.worst:+.2f} at {'column' if group.axis == 'vertical' else 'row'} "
            f"{group.worst_at}",
        )
        for group in seams.groups
    ]
    looked = "all pixels" if seams.whole else f"a sample of {seams.pixels / 1e6:.0f} Mpx"
    return section(
        "Seams",
        f'<p class="verdict {seam_tone(found)}">{escape(seam_verdict(found))}</p>',
        facts_table(_seam_facts(found)),
        table(
            ("SJI by line", "lines", "index", "worst line"),
            rows,
            caption=f"Step at a line over the steps 8 to 25 px beside it, less 1, less the same "
            f"in the source; 0 is invisible. From {looked}. &#8220;{NONE}&#8221;: multiples of "
            "32 px at which no tile begins or ends, that is the network&#8217;s own pattern.",
            numbers=(1, 2),
        ),
    )


def _seam_facts(found: Comparison) -> dict[str, Any]:
    seams, shift = found.seams, found.shift
    own = (
        "" if seams.off_lattice is None else f", the network's own pattern {seams.off_lattice:+.3f}"
    )
    facts: dict[str, Any] = {
        "SJI, seam jump index (visible)": f"{seams.index:+.3f} over {seams.lines} of "
        f"{seams.lines_there} lines{own}",
        "SJI beyond that pattern": None if seams.excess is None else f"{seams.excess:+.3f}",
        "Lines that show most": standing_out(seams),
        "OD, overlap disagreement (hidden)": None
        if found.disagreement is None
        else f"{found.disagreement:.2f} grey levels between tiles side by side",
    }
    if shift is not None:
        facts["GSI, lattice moved by " + f"{shift.shift} px"] = (
            f"{shift.mean:.2f} grey levels on average, {shift.p99:.0f} at the 99th percentile; "
            f"{shift.changed:.1%} of the pixels change ({shift.blocks} sample blocks)"
        )
    return facts


def _looks(looks: list[Look]) -> str:
    figures = []
    for look in looks:
        where = f"column {look.col}, row {look.row}"
        words = "the middle" if look.heat is None else f"seam index {look.heat:+.2f}"
        figures.append(
            f'<figure><div class="pair"><img alt="Satellite, {where}" '
            f'src="{data_uri(look.source)}"><img alt="Map, {where}" src="{data_uri(look.map)}">'
            f"</div><figcaption>{words}, {where}</figcaption>"
            f'<button type="button" data-col="{look.col}" data-row="{look.row}">Show above</button>'
            "</figure>"
        )
    return section(
        "Closer looks",
        "<p>Full size, where the lattice's lines stand out most, and in the middle.</p>",
        f'<div class="looks">{"".join(figures)}</div>' if figures else "",
    )


def _truth(found: Comparison) -> str:
    if found.truth is None:
        return ""
    rows = [
        (escape(name), "-" if value != value else f"{value:.3f}")
        for name, value in found.truth.values.items()
    ]
    caption = (
        f"{escape(found.truth.path)}, {found.truth.windows} windows of {found.truth.side} px. "
        "A dash: neither map has the class."
    )
    return section(
        "Against the true map", table(("figure", "value"), rows, caption=caption, numbers=(1,))
    )


def _classes(found: Comparison) -> str:
    if not found.classes:
        return ""
    most = max(entry.share for entry in found.classes) or 1.0
    painted = found.valid * found.height * found.width  # shares are of these pixels alone
    area = None if found.gsd_m is None else painted * found.gsd_m**2
    rows = []
    for entry in sorted(found.classes, key=lambda one: -one.share):
        swatch = f'<span class="swatch" style="background:rgb{entry.colour}"></span>'
        bar = f'<div style="width:{100 * entry.share / most:.2f}%"></div>'
        hectares = "" if area is None else f"{entry.share * area / 1e4:,.1f}"
        rows.append((swatch + escape(entry.name), f"{entry.share:.2%}", hectares, bar))
    seen = "all pixels" if found.seams.whole else f"a sample of {found.seams.pixels / 1e6:.0f} Mpx"
    heads = ("class", "share", "hectares" if area else "", '<span class="unseen">bar</span>')
    counted = table(heads, rows, caption=f"Counted by colour on {seen}.", numbers=(1, 2))
    return section("Classes", counted.replace("<td><div", '<td class="share"><div'))


def _map_facts(found: Comparison) -> dict[str, Any]:
    a, b, c, d, e, f = found.transform
    corner = a * found.width + b * found.height + c, d * found.width + e * found.height + f
    placed = found.crs != "no CRS"
    return {
        "File": found.target,
        "Source": found.source,
        "Laid": found.how,
        "Size": f"{found.width} x {found.height} px",
        "CRS": found.crs,
        "First corner": f"{c:.8g}, {f:.8g}" if placed else None,
        "Last corner": f"{corner[0]:.8g}, {corner[1]:.8g}" if placed else None,
        "Metres a pixel": None if found.gsd_m is None else f"{found.gsd_m:.4g}",
        "Written by": found.tags.get("TIFFTAG_SOFTWARE"),
    }


def _plan_facts(found: Comparison) -> dict[str, Any]:
    plan = found.plan
    facts: dict[str, Any] = {
        "Lattice": f"{found.lattice.tile_count} tiles of {found.lattice.tile} px, overlap "
        f"{found.lattice.overlap}" + ("" if plan else " (supposed: the map does not say)"),
        "Blocks": f"of {found.block} px"
        + ("" if found.block_known else " (supposed: name theirs with --block)"),
    }
    if plan is not None:
        warp = plan["source"].get("warp")
        facts |= {
            "Precision": f"{plan.get('precision')} on {plan.get('device')}",
            "Symmetries averaged": "8" if plan.get("tta") else None,
            "Resampled": f"by {warp['row_step']:.4g} x {warp['col_step']:.4g}" if warp else None,
            "Bands": ", ".join(map(str, plan["source"].get("bidx", []))),
            "Fingerprint": str(plan.get("fingerprint", ""))[:16],
        }
    return facts | found.timings


def _model_facts(found: Comparison) -> dict[str, Any]:
    tags, card = found.tags, found.card
    facts: dict[str, Any] = {
        "Name": tags.get("TILEMAPPER_MODEL"),
        "sha256": tags.get("TILEMAPPER_MODEL_SHA256", "")[:16],
    }
    if card is None:
        if facts["Name"]:
            facts["Card"] = "not found here"
        return facts
    head = f"palette of {len(card.palette)}" if card.palette else "RGB"
    facts |= {
        "Architecture": f"{card.architecture}, {head}",
        "Trained at": None if card.gsd_m is None else f"{card.gsd_m:g} m a pixel",
        "Licence": card.licence,
        "Data": card.origin,
        "Trained": " ".join(part for part in (card.date, card.hardware) if part),
    }
    figures = ("road_f1", "water_iou", "park_iou", "mean_iou", "acc5", "acc10", "psnr", "ssim")
    known = [f"{name} {card.metrics[name]:.3g}" for name in figures if name in card.metrics]
    return facts | {"Held-out figures": ", ".join(known)}
