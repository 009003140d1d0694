"""From a preset, a job file and ``--set`` values to a checked training job."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import tilemapper
from tilemapper import toml
from tilemapper.errors import JobError, OptionError
from tilemapper.networks.arguments import (
    PatchGANArguments,
    generator_arguments,
    nearest,
    parse,
    wanted,
)
from tilemapper.networks.card import PaletteClass
from tilemapper.training.config import TrainingJob
from tilemapper.training.runfolder import CONFIG_NAME
from tilemapper.training.settings import known_keys, layers_of

DEFAULT_PRESET = "fast"
LENGTHS = ("steps", "epochs", "minutes")


def preset_paths() -> dict[str, Path]:
    """Presets by name: the packaged ``pipelines``, or the checkout's."""
    package = Path(tilemapper.__file__).parent
    for folder in (package / "pipelines", package.parent / "pipelines"):
        found = {p.stem: p for p in sorted(folder.glob("*.toml")) if _is_training(p)}
        if found:
            return found
    return {}


def load_job(
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> TrainingJob:
    """The preset, replaced key by key by the job file, then by the overrides.

    Args:
        preset: name of a file under ``pipelines``; "fast" when no job file is given either.
        config: a TOML job file of kind "training".
        overrides: ``"section.key"`` (or the key alone where one section has it) -> TOML value;
            a value that is no TOML is taken as a string.

    Raises:
        OptionError: the preset or an override is unknown.
        ModelError: a network, or an argument of one, is unknown.
        JobError: a file is missing, no TOML, or has an unknown key or a wrong value.
    """
    values: dict[str, Any] = {}
    where = "training job"
    if preset is not None or config is None:
        presets = preset_paths()
        name = preset or DEFAULT_PRESET
        if name not in presets:
            raise OptionError(
                f"preset {name!r}: unknown, one of {', '.join(presets) or 'none found'} is needed"
                f"{nearest(name, presets)}"
            )
        values, where = _read_toml(presets[name]), presets[name].name
    if config is not None:
        values, where = _over(values, _read_toml(Path(config))), Path(config).name
    # All of them together, whatever their order: what one makes senseless below is not another's.
    whole: dict[str, Any] = {}
    inner: dict[str, Any] = {}
    for path, layer in layers_of(overrides or {}):
        if len(path) > 2:
            inner = _merged(inner, layer)
        else:
            whole = _merged(whole, layer)
    job = _merged(_over(values, whole), inner)
    return check_job(job, where=f"{where} with --set" if overrides else where)


def read_job(
    folder: Path,
    *,
    preset: str | None,
    config: str | Path | None,
    settings: Mapping[str, str] | None,
    resume: bool,
    budget_minutes: float | None,
) -> TrainingJob:
    """The job of a call of `train` with these arguments, its length included.

    Raises:
        OptionError, JobError, ModelError: as `load_job`, and for a budget that is no time, or a run
            without length.
    """
    if budget_minutes is not None and not 0 < budget_minutes < math.inf:
        raise OptionError(
            f"budget_minutes: {budget_minutes} found, a number above 0 is needed; leave it out for "
            "a run without"
        )
    job = load_job(
        preset=None if resume else preset,
        config=folder / CONFIG_NAME if resume else config,
        overrides=settings,
    )
    return _with_length(job, budget_minutes)


def _with_length(job: TrainingJob, budget_minutes: float | None) -> TrainingJob:
    trainer = job.trainer
    if trainer.steps or trainer.epochs or trainer.minutes:
        return job
    if not budget_minutes:
        raise JobError(
            "training job: no length; set trainer.steps, trainer.epochs or trainer.minutes, or "
            "give --budget-minutes"
        )
    return job.model_copy(
        update={
            "trainer": trainer.model_copy(
                # The budget counts all time: by that of the steps alone the run would never end.
                update={"minutes": float(budget_minutes), "minutes_of": "all"}
            )
        }
    )


def load_palette(path: Path) -> tuple[PaletteClass, ...]:
    """The classes of a job file, to judge maps by.

    Raises:
        JobError: it is no job file, or has none.
    """
    classes = load_job(config=path).palette
    if not classes:
        raise JobError(
            f"{path}: no [[palette]] found, its classes are needed; count them with "
            "tilemapper pairs palette"
        )
    return classes


def check_job(values: Mapping[str, Any], *, where: str) -> TrainingJob:
    """``values`` as a job.

    Raises JobError, or ModelError for arguments of a network, with one line about the first fault.
    """
    try:
        job = TrainingJob.model_validate(dict(values))
        _check_networks(job)
        return job
    except ValidationError as error:
        fault = error.errors()[0]
    place = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        hint = nearest(place[-1], known_keys(place[:-1]))
        raise JobError(f"{where}: unknown key {'.'.join(place)}{hint}")
    found = "" if isinstance(fault["input"], dict) else f" is {str(fault['input'])[:60]!r}"
    subject = f" {'.'.join(place)}{found}:" if place else ""
    raise JobError(f"{where}:{subject} {wanted(fault)}; correct it")


def _check_networks(job: TrainingJob) -> None:
    """Raises ModelError for a network or an argument that there is not."""
    networks = job.networks
    generator_arguments(networks.generator, networks.generator_arguments)
    parse(PatchGANArguments, networks.discriminator_arguments, where="discriminator")


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`_merged`, where what is given above takes the place of what it makes senseless below.

    A length of the run replaces another length; arguments are replaced as a whole, and another
    architecture drops those of the one before.
    """
    networks = above.get("networks")
    if isinstance(networks, Mapping):
        old = dict(below.get("networks") or {})
        if networks.get("generator", old.get("generator")) != old.get("generator"):
            old.pop("generator_arguments", None)
        old = {n: v for n, v in old.items() if not (n.endswith("_arguments") and n in networks)}
        below = {**below, "networks": old}
    trainer = above.get("trainer")
    if isinstance(trainer, Mapping) and any(trainer.get(name) for name in LENGTHS):
        kept = {n: v for n, v in dict(below.get("trainer") or {}).items() if n not in LENGTHS}
        below = {**below, "trainer": kept}
    return _merged(below, above)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, table by table; lists are replaced as a whole."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return toml.read(path)
    except FileNotFoundError as error:
        raise JobError(f"{path}: not found, a TOML job file is needed; check the path") from error
    except (OSError, ValueError) as error:
        raise JobError(f"{path}: cannot be read as TOML ({error}); correct it") from error


def _is_training(path: Path) -> bool:
    try:
        return toml.read(path).get("kind") == "training"
    except (OSError, ValueError):
        return False
