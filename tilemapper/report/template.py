"""Pages from the files under ``report/pages``: plain text with ``{{names}}`` to be filled in."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from tilemapper.raster.webp import Picture

_NAME = re.compile(r"\{\{(\w+)\}\}")


def page_part(name: str) -> str:
    """The text of a file under ``report/pages``."""
    return files("tilemapper.report").joinpath("pages", name).read_text(encoding="utf-8")


def fill(template: str, parts: Mapping[str, str]) -> str:
    """The template with each ``{{name}}`` replaced, once: parts may hold braces of their own.

    Raises:
        KeyError: a name has no part.
    """
    return _NAME.sub(lambda found: parts[found[1]], template)


def as_json(values: Any) -> str:
    """JSON that may stand in a script element: no text from outside can end it."""
    return json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")


def data_uri(picture: Picture) -> str:
    """A picture as the address of itself."""
    return f"data:{picture.media};base64,{base64.b64encode(picture.data).decode()}"


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    numbers: Sequence[int] = (),
) -> str:
    """A table of HTML cells; first cells are headings of their rows, ``numbers`` flush right."""

    def cells(row: Sequence[str]) -> str:
        first, *rest = row
        numbered = [
            f'<td class="n">{cell}</td>' if place in numbers else f"<td>{cell}</td>"
            for place, cell in enumerate(rest, start=1)
        ]
        return f'<th scope="row">{first}</th>{"".join(numbered)}'

    head = "".join(
        f'<th scope="col"{" class=n" if place in numbers else ""}>{name}</th>'
        for place, name in enumerate(heads)
    )
    body = "".join(f"<tr>{cells(row)}</tr>" for row in rows)
    title = f"<caption>{caption}</caption>" if caption else ""
    top = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return f'<div class="wide"><table>{title}{top}<tbody>{body}</tbody></table></div>'


def facts_table(facts: Mapping[str, Any], *, caption: str = "") -> str:
    """Names and values, text from outside escaped; those that are None or empty are left out."""
    rows = [
        (escape(name), escape(str(value)))
        for name, value in facts.items()
        if value is not None and value != ""
    ]
    return table((), rows, caption=caption)


def section(title: str, *parts: str) -> str:
    """A section with its heading; nothing if it would be empty."""
    inside = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""
