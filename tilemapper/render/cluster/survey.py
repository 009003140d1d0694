"""What a running cluster has, asked before the plan is made."""

from __future__ import annotations

import contextlib
import pickle
import time
from dataclasses import dataclass

from tilemapper.errors import NoWorkerError
from tilemapper.networks.model import Model
from tilemapper.render.cluster.connection import address_of, connected
from tilemapper.render.cluster.tasks import device_of
from tilemapper.render.messenger import candidates
from tilemapper.render.spread import LONELY_S


@dataclass(frozen=True)
class Survey:
    """What a running cluster has: workers that can take part, their device, its precision."""

    workers: int
    device: str
    precision: str


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
                client.submit(device_of, kind, pickle.dumps(model), workers=[at], pure=False)
                for at in candidates(client, kind != "cpu") or {}
            ]
            answers = []
            for future in asked:
                with contextlib.suppress(Exception):  # one that cannot answer does not count
                    answers.append(future.result(timeout=max(1.0, deadline - time.monotonic())))
            if answers:
                best = max(name for name, _ in answers)
                precisions = {precision for name, precision in answers if name == best}
                agreed = precisions.pop() if len(precisions) == 1 else "fp32"
                return Survey(sum(name == best for name, _ in answers), best, agreed)
            time.sleep(1.0)
    raise NoWorkerError(f"{scheduler}: no worker answers; start some, then run the command again")
