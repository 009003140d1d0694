"""What a running cluster has, asked before the plan is made."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tilemapper.errors import NoWorkerError
from tilemapper.networks.model import Model
from tilemapper.render.cluster.connection import address_of, connected
from tilemapper.render.cluster.tasks import Facilities, facilities, probe
from tilemapper.render.messenger import candidates
from tilemapper.render.plan import Plan
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
    """
    kind = device.partition(":")[0]
    with connected(address_of(scheduler, insecure=insecure)) as client:
        deadline = time.monotonic() + LONELY_S
        while time.monotonic() < deadline:
            asked = [
                client.submit(facilities, kind, pickle.dumps(model), workers=[at], pure=False)
                for at in candidates(client, kind != "cpu") or {}
            ]
            answers = []
            for future in asked:
                with contextlib.suppress(Exception):  # one that cannot answer does not count
                    answers.append(future.result(timeout=max(1.0, deadline - time.monotonic())))
            if answers:
                return agreed(answers)
            time.sleep(1.0)
    raise NoWorkerError(f"{scheduler}: no worker answers; start some, then run the command again")


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
        TilemapperError: the worker cannot run the model.
    """
    order = pickle.dumps(Order(plan, model, Path(), ("", ""), versions()))
    with connected(address_of(scheduler, insecure=insecure)) as client:
        names = sorted(candidates(client, plan.device.startswith("cuda")) or {})
        if not names:
            raise NoWorkerError(f"{scheduler}: no worker answers; start some, then try again")
        rate = None
        for files in (None, pickle.dumps(model_files(model))):
            task = client.submit(probe, order, files, workers=names[:1], pure=False)
            try:
                rate = task.result(timeout=LONELY_S)
            except TimeoutError as error:
                raise NoWorkerError(
                    f"worker {names[0]}: no answer for {LONELY_S:.0f} s; look at it"
                ) from error
            if rate is not None:
                break
        # With fewer blocks than workers some stand idle.
        return min(plan.workers, len(plan.blocks)) * float(rate or 0)
