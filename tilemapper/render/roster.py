"""Who is there to render: workers that come, fit, go, hang, or are left out.

What they render is not known here: `tilemapper.render.spread` deals the blocks, and takes back
those of the workers that are lost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tilemapper.errors import NoWorkerError, TilemapperError
from tilemapper.raster.lattice import Block
from tilemapper.render.crew import Crew, Examined
from tilemapper.render.opening import Opening, cannot_look
from tilemapper.render.workers import Look

LOG = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks at who is there
# A worker that has been quiet for long before may be so again: its device is slow, not hung.
PATIENCE = 10.0


@dataclass
class Job:
    """A block on its way."""

    block: Block
    tiles: int = 0
    failures: int = 0
    deaths: int = 0
    avoid: set[str] = field(default_factory=set)


@dataclass
class Seat:
    """A worker, from the moment it is asked to look around.

    Attributes:
        address: where it is reached.
        sign_s: when it last gave a sign of life.
        ready: it fits, and may be sent blocks.
        carry: it has no shared folder, so its pixels travel.
        tickets: the jobs that are out at it.
        begun: of these, the ones that it is at.
    """

    address: str
    sign_s: float
    ready: bool = False
    carry: bool = False
    model_sent: bool = False
    tickets: dict[str, Job] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)


class Roster:
    """The workers of one render.

    Args:
        crew: how they are reached.
        stall_s, lonely_s, load_s: how long to wait for a quiet worker, for any worker at all, and
            for a worker's first answer.
        clock: seconds, monotonic.

    Attributes:
        seats: the workers that are there, by address.
    """

    def __init__(
        self,
        crew: Crew,
        *,
        stall_s: float,
        lonely_s: float,
        load_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._crew, self._clock = crew, clock
        self._stall_s, self._lonely_s, self._load_s = stall_s, lonely_s, load_s
        self.seats: dict[str, Seat] = {}
        self._benched: set[str] = set()
        self._opening = Opening()
        self._longest_s = 0.0
        self._looked_s = clock() - LOOK_S
        # Since when no scheduler answered, and since when no worker was ready. Counted from what
        # was seen: a run that was itself suspended for an hour has not been alone for one.
        self._unanswered_s: float | None = None
        self._idle_s: float | None = None

    def ready(self) -> list[Seat]:
        """The workers that may be sent blocks; none before the opening is over."""
        if not self._opening.over(self._clock()):
            return []
        return [seat for seat in self.seats.values() if seat.ready]

    def misfit(self) -> TilemapperError | None:
        """What did not fit of the workers that were there at the start, once they have answered."""
        return self._opening.fault() if self._opening.over(self._clock()) else None

    def look(self) -> Iterator[Seat]:
        """Looks who is there, now and then, and asks those who are new; yields who has gone."""
        now = self._clock()
        if now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        present = self._crew.present()
        if present is None:
            self._unanswered_s = now if self._unanswered_s is None else self._unanswered_s
            return
        self._unanswered_s = None
        for address in set(self.seats) - present:
            LOG.info("worker %s: lost; its blocks go to others", address)
            yield self._drop(address)
        self._benched &= present
        for address in sorted(present - set(self.seats) - self._benched):
            self.seats[address] = Seat(address, sign_s=now)
            self._crew.examine(address)
        self._opening.begin(present)

    def admit(self, event: Examined) -> Seat | None:
        """Takes a worker's answer; returns its seat if it is lost instead."""
        seat, look = self.seats.get(event.address), event.answer
        if seat is None:
            return None
        seat.sign_s = self._clock()
        if look is None:
            return self._drop(event.address)  # if it is back at the next look, it is asked again
        if isinstance(look, BaseException):
            look = Look((cannot_look(look),), False, True)
        if not look.holds_model and not look.faults and not seat.model_sent:
            seat.model_sent = True
            self._crew.send_model(event.address)
            return None
        if not look.holds_model:
            look = Look((*look.faults, "does not take the model"), False, False)
        if not look.faults:
            seat.ready, seat.carry = True, not look.shares_folder
        else:
            del self.seats[event.address]
            self._benched.add(event.address)
            if not self._opening.waits_for(event.address):
                faults = "; ".join(look.faults)
                LOG.warning("worker %s is left out: %s", event.address, faults)
        self._opening.answered(event.address, seat.sign_s, look.faults)
        return None

    def sign(self, seat: Seat, ticket: str) -> None:
        """A worker was heard of, about this ticket."""
        now = self._clock()
        if ticket in seat.begun:
            self._longest_s = max(self._longest_s, now - seat.sign_s)
        seat.sign_s = now

    def watch(self) -> Iterator[Seat]:
        """Gives up workers that give no sign of life; yields them."""
        now = self._clock()
        patience_s = max(self._stall_s, PATIENCE * self._longest_s)
        for address, seat in list(self.seats.items()):
            quiet_s = now - seat.sign_s
            if quiet_s > (patience_s if seat.ready else self._load_s) and (
                seat.tickets or not seat.ready
            ):
                LOG.warning("worker %s: no sign of life for %.0f s; given up", address, quiet_s)
                yield self._drop(address)
                self._benched.add(address)
                self._crew.end(address)
        if any(seat.ready for seat in self.seats.values()):
            self._idle_s = None
        elif self._idle_s is None:
            self._idle_s = now

    def deserted(self) -> NoWorkerError | None:
        """That no worker is left, once that has lasted."""
        # One that is there and still loads may become ready; how long is for `watch` to say.
        idle_s = None if self.seats else self._idle_s
        since = min(s for s in (self._unanswered_s, idle_s, math.inf) if s is not None)
        if self._clock() - since <= self._lonely_s:
            return None
        return NoWorkerError(
            f"cluster: no worker for {self._lonely_s:.0f} s, finished blocks are kept; see to "
            "the workers, then run the same command again to go on"
        )

    def _drop(self, address: str) -> Seat:
        self._opening.answered(address, self._clock())
        return self.seats.pop(address)
