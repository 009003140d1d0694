"""Several blocks at once on one GPU: while one is encoded and staged, the next ones are painted.

A GPU is through a block in less time than the host needs to sync its files. Each block has a view
of the source and a thread of its own; the generator is shared.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from tilemapper.raster.lattice import Block
from tilemapper.raster.source import SourceView
from tilemapper.render.journal import Receipt

ABREAST = 3  # one is read and painted, one encoded, one synced

Tick = Callable[[int], None]


class _StoppedError(Exception):
    """The caller wants no more blocks."""


def render_abreast(
    render: Callable[[Block, SourceView, Tick], Receipt],
    pending: Sequence[Block],
    *,
    open_view: Callable[[], SourceView],
    tick: Tick | None = None,
    abreast: int = ABREAST,
) -> Generator[Receipt, None, None]:
    """Receipts of the blocks, as they are finished.

    Args:
        render: renders one block from a view, calling back with the number of tiles done.
        pending: the blocks.
        open_view: opens the source; called once for each block that is under way at once.
        tick: called in turn, never twice at once.
        abreast: blocks under way at once.

    Raises:
        TilemapperError: of the first block that failed; the others are ended at their next batch.
    """
    stop, turn = threading.Event(), threading.Lock()
    views: queue.SimpleQueue[SourceView] = queue.SimpleQueue()
    opened: list[SourceView] = []

    def count(tiles: int) -> None:
        if stop.is_set():
            raise _StoppedError
        with turn:
            if tick is not None:
                tick(tiles)

    def run(block: Block) -> Receipt:
        view = views.get()
        try:
            return render(block, view, count)
        finally:
            views.put(view)

    waiting, running = iter(pending), set[Future[Receipt]]()
    pool = ThreadPoolExecutor(min(abreast, len(pending)), "block")
    try:
        for _ in range(min(abreast, len(pending))):
            opened.append(open_view())
            views.put(opened[-1])
        while True:
            while len(running) < abreast and (block := next(waiting, None)) is not None:
                running.add(pool.submit(run, block))
            if not running:
                return
            # A timeout, so that a signal is heard while blocks are under way.
            done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        for view in opened:
            view.close()
