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
from pathlib import Path

from tilemapper.errors import NoWorkerError, StagingError, TilemapperError
from tilemapper.raster.lattice import Block
from tilemapper.render.crew import Crew, Event, Examined, Progress
from tilemapper.render.journal import Receipt
from tilemapper.render.roster import LOOK_S, Job, Roster, Seat
from tilemapper.render.workers import Files, stage_files

LOG = logging.getLogger(__name__)

DEPTH = 2  # blocks out at a worker
TRIES = 4  # of a block: once, and three times again
STALL_S = 45.0  # without a sign of life, a worker counts as hung
LONELY_S = 60.0  # without any worker, the run ends
LOAD_S = 110.0  # for looking around: eight processes that load torch at once take their time


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
        self._crew, self._folder, self._tick, self._clock = crew, folder, tick, clock
        self._roster = Roster(crew, stall_s=stall_s, lonely_s=lonely_s, load_s=load_s, clock=clock)
        self._waiting = deque(Job(block) for block in pending)
        self._left = len(self._waiting)
        self._where: dict[str, Seat] = {}  # by ticket
        self._sent = 0
        self._died: list[Job] = []  # since a block was finished last
        self._fault: TilemapperError | None = None
        self._cause: BaseException | None = None

    def __iter__(self) -> Iterator[Receipt]:
        """Receipts of blocks that stand in the folder, in the order in which they were finished.

        Raises:
            NoWorkerError: no worker is left, or workers die on one block again and again.
            TilemapperError: a block failed four times (of its kind), or workers do not fit.
        """
        while self._left:
            for seat in self._roster.look():
                self._take_back(seat)
            self._deal()
            for event in self._crew.events(LOOK_S):
                receipt = self._take(event)
                if receipt is not None:
                    self._left -= 1
                    yield receipt
            for seat in self._roster.watch():
                # What hangs twice would hang for ever: it counts like two deaths.
                self._take_back(seat, weight=TRIES // 2)
            self._fault = self._roster.deserted() or self._fault
            # Only now: what had been finished by then is not thrown away.
            if self._fault is not None and self._left:
                raise self._fault from self._cause

    def _take_back(self, seat: Seat, weight: int = 1) -> None:
        """Takes a lost worker's blocks to the end of the line: one of them may be what kills."""
        for ticket, job in seat.tickets.items():
            self._crew.forget(ticket)
            del self._where[ticket]
            if ticket in seat.begun:
                self._count_death(job, weight)
            self._waiting.append(job)

    def _count_death(self, job: Job, weight: int = 1) -> None:
        job.deaths += weight
        self._died.append(job)
        if job.deaths >= TRIES:
            self._fault = NoWorkerError(
                f"block {job.block.name}: workers were lost again and again while they rendered "
                "it, for lack of memory, by a kill or because they hung; free memory or look at "
                "the device, then run the same command again to go on"
            )

    def _deal(self) -> None:
        self._fault = self._fault or self._roster.misfit()
        if self._fault is not None:
            return
        seats = self._roster.ready()
        for depth in range(DEPTH):
            for seat in seats:
                # Near the end a block that waits behind another would be missing elsewhere.
                scarce = depth > 0 and len(self._waiting) <= DEPTH * len(seats)
                if len(seat.tickets) != depth or scarce:
                    continue
                job = self._next_for(seat)
                if job is not None:
                    self._send(job, seat)

    def _next_for(self, seat: Seat) -> Job | None:
        """The first block that did not fail at this worker, or that failed at all of them."""
        ready = {other.address for other in self._roster.ready()}
        for place, job in enumerate(self._waiting):
            if seat.address not in job.avoid or ready <= job.avoid:
                del self._waiting[place]
                return job
        return None

    def _send(self, job: Job, seat: Seat) -> None:
        self._sent += 1
        ticket = f"{job.block.name}-{self._sent}"
        if not seat.tickets:
            seat.sign_s = self._clock()
        seat.tickets[ticket] = job
        self._where[ticket] = seat
        self._crew.render(ticket, seat.address, job.block, carry=seat.carry)

    def _take(self, event: Event) -> Receipt | None:
        if isinstance(event, Examined):
            lost = self._roster.admit(event)
            if lost is not None:
                self._take_back(lost)
            return None
        seat = self._where.get(event.ticket)
        if seat is None:
            return None
        self._roster.sign(seat, event.ticket)
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
            self._fail(job, seat.address, event.answer)
        else:
            return self._receive(job, seat, *event.answer)
        return None

    def _receive(self, job: Job, seat: Seat, receipt: Receipt, files: Files) -> Receipt | None:
        if seat.carry:
            try:
                stage_files(self._folder, receipt, files)
            except StagingError as error:  # damaged on its way: once more, elsewhere if need be
                self._fail(job, seat.address, error)
                return None
        self._count(job, receipt.tiles)
        # Something was finished: the cluster works, and what died before may have been bad luck.
        while self._died:
            self._died.pop().deaths = 0
        return receipt

    def _count(self, job: Job, tiles: int) -> None:
        """Ticks for tiles that no earlier try of the block has counted."""
        if tiles > job.tiles:
            if self._tick is not None:
                self._tick(tiles - job.tiles)
            job.tiles = tiles

    def _fail(self, job: Job, address: str, error: BaseException) -> None:
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
