"""The first moments of a run on a cluster: do the workers that are there fit the client?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilemapper.errors import TilemapperError

GRACE_S = 20.0  # after the first answer, for the others


class Opening:
    """Waits for the workers that are there at the start: all must fit, or the user should know.

    It is over when all have answered, or some time after the first did: a worker that hangs must
    not hold up the others.
    """

    def __init__(self) -> None:
        self._asked: set[str] | None = None
        self._first_s: float | None = None
        self._misfits: dict[str, tuple[str, ...]] = {}

    def begin(self, present: set[str]) -> None:
        """These are there; later calls change nothing."""
        if self._asked is None and present:
            self._asked = set(present)

    def waits_for(self, address: str) -> bool:
        """Whether this worker's answer decides about the run."""
        return self._asked is not None and address in self._asked

    def answered(self, address: str, now_s: float, faults: tuple[str, ...] = ()) -> None:
        """A worker fits, or has these faults, or is gone."""
        if self._asked is None or address not in self._asked:
            return
        self._asked.discard(address)
        self._first_s = now_s if self._first_s is None else self._first_s
        if faults:
            self._misfits[address] = faults

    def over(self, now_s: float) -> bool:
        """Whether blocks may be dealt out."""
        if self._asked and self._first_s is not None and now_s - self._first_s > GRACE_S:
            self._asked.clear()
        return self._asked is not None and not self._asked

    def fault(self) -> TilemapperError | None:
        """What does not fit, each fault once with the workers that have it; None if all do."""
        return unfit(self._misfits) if self._misfits else None


def cannot_look(error: BaseException) -> str:
    """That a worker raised what is no fault of a file or a device, in words."""
    return f"cannot look around ({type(error).__name__}: {error})"


def unfit(misfits: Mapping[str, Sequence[str]]) -> TilemapperError:
    """What does not fit of workers, each fault once with the workers that have it."""
    kinds: dict[str, list[str]] = {}
    for address, faults in misfits.items():
        for fault in faults:
            kinds.setdefault(fault, []).append(address)
    lines = [f"worker {', '.join(names)} {fault}" for fault, names in kinds.items()]
    return TilemapperError(
        f"cluster: {'; '.join(lines)}; make the workers fit the client, or leave them out"
    )
