"""Which worker renders which block, and what happens when one dies, fails or hangs.

No more than two blocks are out at a worker: one that it renders, one that waits there. Every
answer comes through one queue, and everything is decided in the caller's thread. A block is a pure
function with an atomic result, so whatever is in doubt is simply rendered again elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tilemapper.errors import NoWorkerError, TilemapperError
from tilemapper.raster.lattice import Block
from tilemapper.render.crew import Crew, Event, Examined, Progress
from tilemapper.render.journal import Receipt
from tilemapper.render.opening import Opening
from tilemapper.render.workers import Files, Look, stage_files

LOG = logging.getLogger(__name__)

DEPTH = 2  # blocks out at a worker
TRIES = 4  # of a block: once, and three times again
STALL_S = 45.0  # without a sign of life, a worker counts as hung
LONELY_S = 60.0  # without any worker, the run ends
LOAD_S = 110.0  # for looking around: eight processes that load torch at once take their time
LOOK_S = 1.0  # between two looks at who is there
# A worker that has been quiet for long before may be so again: its device is slow, not hung.
PATIENCE = 10.0


@dataclass
class _Job:
    """A block on its way."""

    block: Block
    tiles: int = 0
    failures: int = 0
    deaths: int = 0
    avoid: set[str] = field(default_factory=set)


@dataclass
class _Seat:
    """A worker, from the moment it is asked to look around."""

    sign_s: float
    ready: bool = False
    carry: bool = False
    model_sent: bool = False
    tickets: dict[str, _Job] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)


class Spread:
    """One render over a crew; iterate over it for the receipts.

    Args:
        crew: the workers.
        pending: blocks to render.
        folder: where finished blocks are.
        tick: called with the number of tiles done since the last call.
        stall_s, lonely_s, load_s: how long to wait for a quiet worker, for any worker at all, and
            for a worker's first answer.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        crew: Crew,
        pending: Iterable[Block],
        folder: Path,
        tick: Callable[[int], None] | None = None,
        *,
        stall_s: float = STALL_S,
        lonely_s: float = LONELY_S,
        load_s: float = LOAD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._crew, self._folder, self._tick = crew, folder, tick
        self._stall_s, self._lonely_s, self._load_s = stall_s, lonely_s, load_s
        self._clock = clock
        self._waiting = deque(_Job(block) for block in pending)
        self._left = len(self._waiting)
        self._seats: dict[str, _Seat] = {}
        self._benched: set[str] = set()
        self._where: dict[str, str] = {}  # ticket -> address
        self._sent = 0
        self._fault: TilemapperError | None = None
        self._cause: BaseException | None = None
        self._opening = Opening()
        self._longest_s = 0.0
        self._looked_s = self._seen_s = self._staffed_s = clock()
        self._looked_s -= LOOK_S

    def __iter__(self) -> Iterator[Receipt]:
        """Receipts of blocks that stand in the folder, in the order in which they were finished.

        Raises:
            NoWorkerError: no worker is left, or workers die on one block again and again.
            TilemapperError: a block failed four times (of its kind), or workers do not fit.
        """
        while self._left:
            self._look()
            self._deal()
            for event in self._crew.events(LOOK_S):
                receipt = self._take(event)
                if receipt is not None:
                    self._left -= 1
                    yield receipt
            self._watch()
            # Only now: what had been finished by then is not thrown away.
            if self._fault is not None and self._left:
                raise self._fault from self._cause

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        present = self._crew.present()
        if present is None:
            return
        self._seen_s = now
        for address in set(self._seats) - present:
            LOG.info("worker %s: lost; its blocks go to others", address)
            self._lose(address)
        self._benched &= present
        for address in sorted(present - set(self._seats) - self._benched):
            self._seats[address] = _Seat(sign_s=now)
            self._crew.examine(address)
        self._opening.begin(present)

    def _lose(self, address: str, weight: int = 1) -> None:
        """Takes a worker's blocks back, to the end of the line: one of them may be what kills."""
        seat = self._seats.pop(address)
        for ticket, job in seat.tickets.items():
            self._crew.forget(ticket)
            del self._where[ticket]
            if ticket in seat.begun:
                self._count_death(job, weight)
            self._waiting.append(job)
        self._opening.answered(address, self._clock())

    def _count_death(self, job: _Job, weight: int = 1) -> None:
        job.deaths += weight
        if job.deaths >= TRIES:
            self._fault = NoWorkerError(
                f"block {job.block.name}: workers were lost again and again while they rendered "
                "it, for lack of memory, by a kill or because they hung; free memory or look at "
                "the device, then run the same command again to go on"
            )

    def _deal(self) -> None:
        if self._fault is not None or not self._opening.over(self._clock()):
            return
        self._fault = self._opening.fault()
        if self._fault is not None:
            return
        seats = [(address, seat) for address, seat in self._seats.items() if seat.ready]
        for depth in range(DEPTH):
            for address, seat in seats:
                # Near the end a block that waits behind another would be missing elsewhere.
                scarce = depth > 0 and len(self._waiting) <= DEPTH * len(seats)
                if len(seat.tickets) != depth or scarce:
                    continue
                job = self._next_for(address)
                if job is not None:
                    self._send(job, address, seat)

    def _next_for(self, address: str) -> _Job | None:
        """The first block that did not fail at this worker, or that failed at all of them."""
        ready = {other for other, seat in self._seats.items() if seat.ready}
        for place, job in enumerate(self._waiting):
            if address not in job.avoid or ready <= job.avoid:
                del self._waiting[place]
                return job
        return None

    def _send(self, job: _Job, address: str, seat: _Seat) -> None:
        self._sent += 1
        ticket = f"{job.block.name}-{self._sent}"
        if not seat.tickets:
            seat.sign_s = self._clock()
        seat.tickets[ticket] = job
        self._where[ticket] = address
        self._crew.render(ticket, address, job.block, carry=seat.carry)

    def _take(self, event: Event) -> Receipt | None:
        if isinstance(event, Examined):
            self._admit(event)
            return None
        address = self._where.get(event.ticket)
        if address is None:
            return None
        seat, now = self._seats[address], self._clock()
        if event.ticket in seat.begun:
            self._longest_s = max(self._longest_s, now - seat.sign_s)
        seat.sign_s = now
        if isinstance(event, Progress):
            seat.begun.add(event.ticket)
            self._count(seat.tickets[event.ticket], event.tiles)
            return None
        job = seat.tickets.pop(event.ticket)
        seat.begun.discard(event.ticket)
        del self._where[event.ticket]
        self._crew.forget(event.ticket)
        if event.answer is None:
            self._count_death(job)
            self._waiting.append(job)
        elif isinstance(event.answer, BaseException):
            self._fail(job, address, event.answer)
        else:
            return self._receive(job, seat, *event.answer)
        return None

    def _receive(self, job: _Job, seat: _Seat, receipt: Receipt, files: Files) -> Receipt:
        if seat.carry:
            stage_files(self._folder, receipt, files)
        self._count(job, receipt.tiles)
        # Something was finished: the cluster works, and what died before may have been bad luck.
        for other in [
            *self._waiting,
            *(j for s in self._seats.values() for j in s.tickets.values()),
        ]:
            other.deaths = 0
        return receipt

    def _count(self, job: _Job, tiles: int) -> None:
        """Ticks for tiles that no earlier try of the block has counted."""
        if tiles > job.tiles:
            if self._tick is not None:
                self._tick(tiles - job.tiles)
            job.tiles = tiles

    def _fail(self, job: _Job, address: str, error: BaseException) -> None:
        job.failures += 1
        job.avoid.add(address)
        self._waiting.append(job)
        LOG.info("block %s: failed at worker %s: %s", job.block.name, address, error)
        if job.failures < TRIES:
            return
        self._cause = error
        where = f"block {job.block.name}: failed {job.failures} times, last at {address}"
        if isinstance(error, TilemapperError):
            self._fault = type(error)(f"{where}: {error}")
        else:
            self._fault = TilemapperError(
                f"{where}: {type(error).__name__}: {error}; run with --debug to see where"
            )

    def _admit(self, event: Examined) -> None:
        seat = self._seats.get(event.address)
        if seat is None:
            return
        seat.sign_s = self._clock()
        look = event.answer
        if look is None:
            self._lose(event.address)  # if it is back at the next look, it is asked again
            return
        if isinstance(look, BaseException):
            look = Look((f"cannot look around ({type(look).__name__}: {look})",), False, True)
        if not look.holds_model and not look.faults and not seat.model_sent:
            seat.model_sent = True
            self._crew.send_model(event.address)
            return
        if not look.holds_model:
            look = Look((*look.faults, "does not take the model"), False, False)
        if not look.faults:
            seat.ready, seat.carry = True, not look.shares_folder
        else:
            del self._seats[event.address]
            self._benched.add(event.address)
            if not self._opening.waits_for(event.address):
                faults = "; ".join(look.faults)
                LOG.warning("worker %s is left out: %s", event.address, faults)
        self._opening.answered(event.address, seat.sign_s, look.faults)

    def _watch(self) -> None:
        now = self._clock()
        patience_s = max(self._stall_s, PATIENCE * self._longest_s)
        for address, seat in list(self._seats.items()):
            quiet_s = now - seat.sign_s
            if quiet_s > (patience_s if seat.ready else self._load_s) and (
                seat.tickets or not seat.ready
            ):
                LOG.warning("worker %s: no sign of life for %.0f s; given up", address, quiet_s)
                # What hangs twice would hang for ever: it counts like two deaths.
                self._lose(address, weight=TRIES // 2)
                self._benched.add(address)
                self._crew.end(address)
        if any(seat.ready for seat in self._seats.values()):
            self._staffed_s = now
        alone = not self._seats and now - self._staffed_s > self._lonely_s
        if alone or now - self._seen_s > self._lonely_s:
            self._fault = NoWorkerError(
                f"cluster: no worker for {self._lonely_s:.0f} s, finished blocks are kept; see to "
                "the workers, then run the same command again to go on"
            )
