"""Templates of output paths, as a job file gives them."""

from __future__ import annotations

import string

from tilemapper.networks.arguments import nearest

FIELDS = ("stem", "name", "relpath", "date", "model", "mosaic", "row", "col")


def checked_template(value: str) -> str:
    """A template as it is, if it can be filled in and tells scenes apart.

    Raises:
        ValueError: an unknown field, none at all, or a name that is no GeoTIFF's.
    """
    named = fields_of(value)
    if not value.isprintable():
        raise ValueError("no path has control characters; take them out")
    for name in named:
        if name not in FIELDS:
            raise ValueError(f"{{{name}}} is none of {', '.join(FIELDS)}{nearest(name, FIELDS)}")
    if not named:
        raise ValueError("all scenes would get this name; use {stem} or {relpath}")
    if not value.endswith((".tif", ".tiff")):
        raise ValueError("outputs are GeoTIFFs; let it end in .tif")
    return value


def fields_of(template: str) -> list[str]:
    """The fields that a template names.

    Raises:
        ValueError: a brace is left open, or a field has a layout.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{error}; write {{stem}} and so on") from None
    for _, name, layout, conversion in parts:
        if layout or conversion:  # such as a width of a billion
            raise ValueError(f"{{{name}}} is laid out; write {{stem}} and so on, without : and !")
    return [name for _, name, *_ in parts if name is not None]


def prefix_of(template: str) -> str:
    """The folder or prefix above all outputs of a template, with its slash."""
    return fixed_of(template).rpartition("/")[0] + "/"


def fixed_of(template: str) -> str:
    """What a template says before its first field, as it is in the path."""
    fixed = ""
    for text, name, *_ in string.Formatter().parse(template):
        fixed += text
        if name is not None:
            break
    return fixed


def escaped(path: str) -> str:
    """A path as a template has it, in which no brace begins a field."""
    return path.replace("{", "{{").replace("}", "}}")


def filled(template: str) -> str:
    """The path that a template without fields is."""
    return "".join(text for text, *_ in string.Formatter().parse(template))
