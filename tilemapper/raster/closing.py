"""What is closed when a ``with`` ends."""

from __future__ import annotations

from typing import Self


class Closing:
    """Has `close` called at the end of a ``with``; the views of rasters share it."""

    def close(self) -> None:
        """Gives back what is open; a second time does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
