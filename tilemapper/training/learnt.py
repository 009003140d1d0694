"""What a checkpoint holds of networks and optimisers, and how it is taken up again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tilemapper.errors import TrainingError
from tilemapper.training.assembly import Average, generator_kind
from tilemapper.training.config import TrainingJob
from tilemapper.training.task import Task


def learnt(task: Task, average: Average | None) -> dict[str, Any]:
    """All that was learnt so far, as plain data and tensors."""
    return {
        "modules": {name: module.state_dict() for name, module in task.modules.items()},
        "optimisers": {name: o.state_dict() for name, o in task.optimisers.items()},
        "average": average.network.state_dict() if average else None,
        "extra": task.extra_state(),
    }


def take_up(state: Mapping[str, Any], task: Task, average: Average | None) -> None:
    """Gives networks and optimisers what `learnt` gave; call it within `refusing_others`."""
    for name, module in task.modules.items():
        module.load_state_dict(state["modules"][name])
    for name, optimiser in task.optimisers.items():
        own = [{**group, "params": None} for group in optimiser.param_groups]
        optimiser.load_state_dict(state["optimisers"][name])
        # The moments are the checkpoint's; what steers them is the job's, which may differ.
        # The rate is set before each step: without one more, the last step's stays.
        for group, job in zip(optimiser.param_groups, own, strict=True):
            group |= {**job, "params": group["params"], "lr": group["lr"]}
    if average:  # which begins now where there was none
        average.network.load_state_dict(state["average"] or state["modules"]["generator"])
    task.load_extra_state(state["extra"])


def check_meaning(state: Mapping[str, Any], job: TrainingJob) -> None:
    """Refuses weights that fit the job's generator and mean something else in it.

    Another activation, class or direction has no weights, and another start would be told in the
    card without having had any effect; call it within `refusing_others`.
    """
    was, now = _meaning(json.loads(state["job"])), _meaning(job.plain())
    for key, value in was.items():
        if value != now[key]:
            raise ValueError(f"{key} was {json.dumps(value)}")


def _meaning(job: Mapping[str, Any]) -> dict[str, Any]:
    """The keys by which the same weights paint something else, defaults of arguments included."""
    networks = job["networks"]
    name, arguments = generator_kind(networks["generator"], networks["generator_arguments"])
    return {
        "data.direction": job["data"]["direction"],
        "networks.init": networks["init"],
        "networks.encoder": networks.get("encoder", ""),  # older ones lack it
        "networks.head": networks["head"],
        "networks.generator": name,
        "networks.generator_arguments": arguments,
        "palette": job["palette"] if networks["head"] == "palette" else [],
    }


@contextlib.contextmanager
def refusing_others() -> Iterator[None]:
    """For taking up a checkpoint's state.

    Raises:
        TrainingError: it is of other networks, or lacks something.
    """
    try:
        yield
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        # torch's first line names the class alone, the next ones what does not fit.
        words = [line.strip(" \t.") for line in str(error).splitlines()] or [""]
        said = (words[1:] or words)[0][:160]
        raise TrainingError(
            f"checkpoint: of other networks than the job's ({said}); resume with the "
            "configuration of its run, or train into a new folder"
        ) from error
