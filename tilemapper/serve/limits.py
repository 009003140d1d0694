"""What one server may take and hold; everything that a stranger could make grow has a number."""

from __future__ import annotations

from dataclasses import dataclass

from tilemapper.errors import OptionError, TilemapperError


@dataclass(frozen=True)
class Limits:
    """Bounds of a server. Sizes in bytes or pixels, times in seconds, the rest are counts.

    Attributes:
        live_tiles: generator tiles that one XYZ tile may cost; farther out nothing is rendered.
        waiting: XYZ requests in work or waiting; more are asked to come again.
        uploads_at_once, uploads_waiting: uploads in work, and behind them.
    """

    upload_bytes: int = 512 * 2**20
    upload_pixels: int = 200_000_000
    uploads_kept: int = 16
    uploads_at_once: int = 4
    uploads_waiting: int = 16
    upload_silence_s: float = 20.0
    scenes: int = 64
    live_tiles: int = 100
    waiting: int = 96
    wait_s: float = 60.0
    cache_bytes: int = 512 * 2**20
    jobs_waiting: int = 4
    jobs_kept: int = 8
    png_pixels: int = 200_000_000
    listed: int = 500

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise OptionError(f"serve: {name} is {value}, must be 1 or more")


class BusyError(TilemapperError, RuntimeError):
    """A queue is full; the same request can be answered in a moment."""

    def __init__(self, message: str, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GoneError(TilemapperError, LookupError):
    """Nothing of this name is here, or it may not be shown."""


class TooLargeError(TilemapperError, ValueError):
    """What was sent, or asked for, is beyond a limit."""


class Dropped(Exception):
    """The browser that asked has gone: nobody waits for the answer any more."""
