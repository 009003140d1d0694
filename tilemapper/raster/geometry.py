"""Affine arithmetic in the words of rasters; the operators of affine changed between versions."""

from __future__ import annotations

from affine import Affine


def to_ground(transform: Affine, *, row: float, col: float) -> tuple[float, float]:
    """Ground (x, y) of a place in pixels; whole numbers are pixel corners."""
    return (
        transform.a * col + transform.b * row + transform.c,
        transform.d * col + transform.e * row + transform.f,
    )


def to_pixels(transform: Affine, *, x: float, y: float) -> tuple[float, float]:
    """(row, col) in pixels of a place on the ground."""
    col, row = to_ground(~transform, row=y, col=x)
    return row, col


def shifted(transform: Affine, *, row: int, col: int) -> Affine:
    """Transform of the window that begins at row, col."""
    x, y = to_ground(transform, row=row, col=col)
    return Affine(transform.a, transform.b, x, transform.d, transform.e, y)


def stretched(transform: Affine, *, rows: float, cols: float) -> Affine:
    """Transform of pixels that span that many of the old ones; the first corner stays."""
    return Affine(
        transform.a * cols,
        transform.b * rows,
        transform.c,
        transform.d * cols,
        transform.e * rows,
        transform.f,
    )
