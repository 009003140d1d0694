"""What a notebook shows of a result: small pieces of HTML that need nothing from elsewhere.

Pure text, known to every room as `errors` is: each result is shown by its own ``_repr_html_``.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

_FONT = "font:13px/1.5 system-ui,sans-serif;font-variant-numeric:tabular-nums"
# One expression, in the element itself: a notebook that is not trusted drops it, and the two
# pictures then stay side by side, half of each.
_SLIDE = "this.parentNode.querySelector('.over').style.clipPath='inset(0 0 0 '+this.value+'%)'"


def table(rows: Sequence[Sequence[str]], *, caption: str, head: bool = True) -> str:
    """Rows of text as an HTML table; first cells are headings, with ``head`` the first row too."""
    lines = [
        f'<table style="border-collapse:collapse;{_FONT}">'
        f'<caption style="text-align:left">{html.escape(caption)}</caption>'
    ]
    for number, row in enumerate(rows):
        above = head and not number
        cells = [
            f"<{kind} style='text-align:left'>{html.escape(cell)}</{kind.split()[0]}>"
            for place, cell in enumerate(row)
            for kind in ["th scope=col" if above else "td" if place else "th scope=row"]
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "".join([*lines, "</table>"])


def swipe(left: bytes, right: bytes, *, names: tuple[str, str], caption: str, width: int) -> str:
    """Two JPEGs of the same ground, one over the other, with a slider that moves their border.

    Args:
        left: JPEG bytes of what is seen left of the border.
        right: JPEG bytes of what is seen right of it, of the same size.
        names: what they show, for those who cannot see them.
        caption: one line below.
        width: of the pictures, pixels.
    """
    under, over = (
        f'<img alt="{html.escape(name, quote=True)}" src="data:image/jpeg;base64,'
        f'{base64.b64encode(data).decode()}" style="width:100%;display:block;{{}}"{{}}>'
        for name, data in zip(names, (left, right), strict=True)
    )
    place = "position:absolute;inset:0;clip-path:inset(0 0 0 50%)"
    return (
        f'<figure style="margin:0;max-width:{width}px;{_FONT}"><div>'
        f'<div style="position:relative">{under.format("", "")}'
        f"{over.format(place, ' class=over')}</div>"
        f'<input type="range" min="0" max="100" value="50" style="width:100%;margin:0" '
        f'aria-label="border between {html.escape(" and ".join(names), quote=True)}" '
        f'oninput="{_SLIDE}"></div>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
