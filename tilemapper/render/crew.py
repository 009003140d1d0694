"""What the client says to workers and hears from them, however they are reached."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tilemapper.raster.lattice import Block
from tilemapper.render.journal import Receipt
from tilemapper.render.workers import Files, Look


@dataclass(frozen=True)
class Examined:
    """A worker has looked around, or cannot; None when it was lost meanwhile."""

    address: str
    answer: Look | BaseException | None


@dataclass(frozen=True)
class Progress:
    """A worker is at a block; ``tiles`` are all that it has run for it."""

    ticket: str
    tiles: int


@dataclass(frozen=True)
class Finished:
    """A block's receipt and files, its error, or None when the worker was lost."""

    ticket: str
    answer: tuple[Receipt, Files] | BaseException | None


Event = Examined | Progress | Finished


class Crew(Protocol):
    """The workers, wherever they are: see `tilemapper.render.cluster`."""

    def present(self) -> set[str] | None:
        """Addresses of the running workers that come into question; None: no answer."""

    def examine(self, address: str) -> None:
        """Asks a worker to look around; an `Examined` will come."""

    def send_model(self, address: str) -> None:
        """Sends the model and has the worker look around again."""

    def render(self, ticket: str, address: str, block: Block, *, carry: bool) -> None:
        """Sends a block out; a `Finished` will come unless the worker is lost."""

    def forget(self, ticket: str) -> None:
        """Wants no answer for this ticket any more."""

    def end(self, address: str) -> None:
        """Ends a hung worker, if it is ours to end."""

    def events(self, timeout_s: float) -> Iterable[Event]:
        """What has happened; waits for the first event at most so long."""
