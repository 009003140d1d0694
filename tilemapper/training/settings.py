"""``--set KEY=VALUE``: which key of a training job is meant, its value, and all of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from tilemapper import toml
from tilemapper.errors import OptionError
from tilemapper.networks.arguments import nearest
from tilemapper.training.config import TrainingJob

# Chosen by hand rather than found by walking the model: the order is that of the job file.
SECTIONS = ("data", "augment", "networks", "losses", "trainer")


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


def layers_of(settings: Mapping[str, str]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """The path of each setting's key, and the setting as a table to be laid over a job's.

    A value that is no TOML is taken as a string.

    Raises:
        OptionError: a key is unknown.
    """
    for key, text in settings.items():
        path = _full_key(key)
        layer: Any = _toml_value(text)
        for name in reversed(path):
            layer = {name: layer}
        yield path, layer


def _full_key(key: str) -> list[str]:
    """``trainer.batch`` or ``batch`` as a path; OptionError with the nearest known key."""
    path = key.split(".")
    tables: dict[str, Any] = {name: TrainingJob.model_fields[name].annotation for name in SECTIONS}
    if len(path) == 1 and key not in TrainingJob.model_fields:
        holders = [name for name in SECTIONS if key in tables[name].model_fields]
        if len(holders) == 1:
            return [holders[0], key]
    known = known_keys(path[:1] if len(path) > 1 else [])
    every = [k for name in SECTIONS for k in tables[name].model_fields]
    name = path[1] if len(path) > 1 else path[0]
    if path[0] not in TrainingJob.model_fields or (len(path) > 1 and name not in known):
        hints = known if path[0] in SECTIONS else [*every, *TrainingJob.model_fields]
        hint = nearest(name, hints)
        if path[0] in SECTIONS and "did you mean" not in hint:
            hint = f"; {path[0]} has {', '.join(sorted(known))}"
        raise OptionError(f"--set {key}: unknown key{hint}")
    return path


def known_keys(place: Sequence[str]) -> list[str]:
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
