"""From a preset, a job file and ``--set`` values to a checked training job, or to a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

import tilemapper
from tilemapper import toml
from tilemapper.errors import JobError, OptionError
from tilemapper.networks.arguments import PatchGANArguments, generator_arguments, nearest, parse
from tilemapper.networks.card import PaletteClass
from tilemapper.training.config import TrainingJob

DEFAULT_PRESET = "fast"
LENGTHS = ("steps", "epochs", "minutes")
# Chosen by hand rather than found by walking the model: the order is that of the job file.
SECTIONS = ("data", "augment", "networks", "losses", "trainer")


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
    for key, text in (overrides or {}).items():
        path = _full_key(key)
        layer = _nested(path, _toml_value(text))
        if len(path) > 2:
            inner = _merged(inner, layer)
        else:
            whole = _merged(whole, layer)
    return check_job(_merged(_over(values, whole), inner), where=where)


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
        hint = nearest(place[-1], _known_keys(place[:-1]))
        raise JobError(f"{where}: unknown key {'.'.join(place)}{hint}")
    message = fault["msg"].removeprefix("Value error, ")
    found = "" if isinstance(fault["input"], dict) else f" is {str(fault['input'])[:60]!r}"
    subject = f" {'.'.join(place)}{found}:" if place else ""
    raise JobError(f"{where}:{subject} {message}; correct it")


def _check_networks(job: TrainingJob) -> None:
    """Raises ModelError for a network or an argument that there is not."""
    networks = job.networks
    generator_arguments(networks.generator, networks.generator_arguments)
    parse(PatchGANArguments, networks.discriminator_arguments, where="discriminator")


def parse_overrides(settings: Sequence[str]) -> Iterator[dict[str, str]]:
    """Every combination of ``key=value`` settings, where ``key=a,b,c`` stands for three.

    A value in brackets or quotes is one value. Yields one empty dict when there are no settings.

    Raises:
        OptionError: a setting has no ``=``, or a key is unknown, or a key or value is there twice.
    """
    keys: dict[str, str] = {}
    choices = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise OptionError(
                f"--set {setting}: no key=value; write it as trainer.batch=8 "
                "(or trainer.batch=8,16 for a sweep)"
            )
        place = ".".join(_full_key(key.strip()))
        if place in keys:
            raise OptionError(
                f"--set {setting}: {place} is set already; set it once, as {place}=A,B for a sweep"
            )
        keys[place] = key.strip()
        choices.append([value] if value[:1] in "[\"'{" else value.split(","))
        if len(set(choices[-1])) < len(choices[-1]):
            raise OptionError(f"--set {setting}: a value is there twice; give each of them once")
    for chosen in itertools.product(*choices):
        yield dict(zip(keys.values(), chosen, strict=True))


def _full_key(key: str) -> list[str]:
    """``trainer.batch`` or ``batch`` as a path; OptionError with the nearest known key."""
    path = key.split(".")
    tables: dict[str, Any] = {name: TrainingJob.model_fields[name].annotation for name in SECTIONS}
    if len(path) == 1 and key not in TrainingJob.model_fields:
        holders = [name for name in SECTIONS if key in tables[name].model_fields]
        if len(holders) == 1:
            return [holders[0], key]
    known = _known_keys(path[:1] if len(path) > 1 else [])
    every = [k for name in SECTIONS for k in tables[name].model_fields]
    name = path[1] if len(path) > 1 else path[0]
    if path[0] not in TrainingJob.model_fields or (len(path) > 1 and name not in known):
        hints = known if path[0] in SECTIONS else [*every, *TrainingJob.model_fields]
        raise OptionError(f"--set {key}: unknown key{nearest(name, hints)}")
    return path


def _known_keys(place: Sequence[str]) -> list[str]:
    """The keys of the table at ``place``; empty when it is no table of ours."""
    table: Any = TrainingJob
    for name in place[:1]:
        field = TrainingJob.model_fields.get(name)
        table = field.annotation if field else None
    is_table = isinstance(table, type) and issubclass(table, BaseModel)
    return list(table.model_fields) if is_table else []


def _toml_value(text: str) -> Any:
    try:
        return toml.loads(f"value = {text}")["value"]
    except ValueError:
        return text


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    assert isinstance(value, dict)
    return value


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
