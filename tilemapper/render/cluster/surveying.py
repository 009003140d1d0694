"""What a running cluster has, asked before the plan is made."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilemapper.errors import NoWorkerError, TilemapperError
from tilemapper.networks.model import Model
from tilemapper.render.cluster.connection import address_of, connected
from tilemapper.render.cluster.tasks import TASKS, Facilities, facilities, misfits_here, probe
from tilemapper.render.messenger import LOST, candidates, loading
from tilemapper.render.opening import cannot_look, unfit
from tilemapper.render.plan import Plan
from tilemapper.render.roster import LOOK_S
from tilemapper.render.spread import LONELY_S
from tilemapper.render.workers import Order, model_files, versions


@dataclass(frozen=True)
class Survey:
    """What a running cluster has: workers that can take part, their device, what fits them all."""

    workers: int
    device: str
    precision: str
    batch_size: int


def survey(scheduler: str, model: Model, *, device: str = "auto", insecure: bool = False) -> Survey:
    """Asks the workers of a running cluster for their devices, of which the client may have none.

    Raises:
        NoWorkerError: no scheduler or no worker answers within a minute.
        OptionError: the scheduler's address may not be used.
        TilemapperError: all that answer, say that they cannot take part.
    """
    kind = device.partition(":")[0]
    with connected(address_of(scheduler, insecure=insecure)) as client:
        deadline = time.monotonic() + LONELY_S
        while time.monotonic() < deadline:
            here = candidates(client, kind != "cpu") or {}
            question = facilities, kind, pickle.dumps(model)
            answers, refusals = ask_all(client, here, *question, until_s=deadline)
            if answers:  # those who do not fit are named when blocks are dealt out
                return agreed(list(answers.values()))
            if here and len(refusals) == len(here):
                raise _refused(refusals)
            time.sleep(1.0)
    raise NoWorkerError(f"{scheduler}: no worker answers; start some, then run the command again")


def ask_all(
    client: Any, addresses: Iterable[str], task: Callable[..., Any], *arguments: Any, until_s: float
) -> tuple[dict[str, Any], dict[str, Exception]]:
    """What workers answer, and what others raise; those that are lost or hang are in neither.

    Args:
        client: of the cluster.
        addresses: the workers.
        task: of `tilemapper.render.cluster.tasks`; its last argument is left to `loading`.
        arguments: its others, of types that a worker knows without us.
        until_s: how long to wait, on the monotonic clock.
    """
    asked = {}
    for at in addresses:
        needs = (*arguments, loading(client, TASKS.module, at))
        asked[at] = client.submit(task, *needs, workers=[at], pure=False)
    answers, refusals = {}, {}
    for at, future in asked.items():
        try:
            answers[at] = _answer(client, at, future, until_s)
        except TimeoutError:
            continue
        except Exception as error:  # whatever a worker raises
            if type(error).__name__ not in LOST:
                refusals[at] = error
    return answers, refusals


def _answer(client: Any, at: str, future: Any, until_s: float) -> Any:
    """What one worker answers; raises TimeoutError if it takes too long, or is not there any more.

    The scheduler tells nobody of a lost worker whose task is for it alone: it waits for another at
    the same address.
    """
    while True:
        try:
            return future.result(timeout=LOOK_S)
        except TimeoutError:
            if future.done():  # meanwhile; or it is what the worker raised
                return future.result()
            present = candidates(client, gpu=False)
            is_lost = present is not None and at not in present
            if is_lost or time.monotonic() >= until_s:
                raise


def check_versions(client: Any, addresses: Iterable[str], until_s: float) -> None:
    """Raises TilemapperError if workers have other versions than the client, or none at all."""
    answers, refusals = ask_all(client, addresses, misfits_here, versions(), until_s=until_s)
    misfits = {at: faults for at, faults in answers.items() if faults}
    misfits |= {at: [cannot_look(error)] for at, error in refusals.items()}
    if misfits:
        raise unfit(misfits)


def _refused(refusals: Mapping[str, Exception]) -> TilemapperError:
    """That no worker can take part."""
    for at, error in refusals.items():
        if isinstance(error, TilemapperError):
            return type(error)(f"worker {at}: {error}")
    return unfit({at: [cannot_look(error)] for at, error in refusals.items()})


def agreed(answers: Sequence[Facilities]) -> Survey:
    """What all workers with the best kind of device can do: one plan must fit each of them."""
    best = max(answer.device for answer in answers)  # cuda:0 comes after cpu
    chosen = [answer for answer in answers if answer.device == best]
    precisions = {answer.precision for answer in chosen}
    return Survey(
        workers=len(chosen),
        device=best,
        precision=precisions.pop() if len(precisions) == 1 else "fp32",
        batch_size=min(answer.batch_size for answer in chosen),
    )


def cluster_speed(scheduler: str, plan: Plan, model: Model, *, insecure: bool = False) -> float:
    """Tiles a second of the plan's workers together, measured on one of them for a moment.

    Raises:
        NoWorkerError: no scheduler or no worker answers.
        TilemapperError: workers do not fit the client, or cannot run the model.
    """
    order = pickle.dumps(Order(plan, model, Path(), ("", ""), versions()))
    with connected(address_of(scheduler, insecure=insecure)) as client:
        names = sorted(candidates(client, plan.device.startswith("cuda")) or {})
        if not names:
            raise NoWorkerError(f"{scheduler}: no worker answers; start some, then try again")
        check_versions(client, names, time.monotonic() + LONELY_S)
        rate = None
        for files in (None, pickle.dumps(model_files(model))):
            until_s = time.monotonic() + LONELY_S
            answers, refusals = ask_all(client, names[:1], probe, order, files, until_s=until_s)
            if refusals:
                raise _refused(refusals)
            if not answers:
                raise NoWorkerError(f"worker {names[0]}: was lost or hangs; look at it")
            rate = answers[names[0]]
            if rate is not None:
                break
        # With fewer blocks than workers some stand idle.
        return min(plan.workers, len(plan.blocks)) * float(rate or 0)
