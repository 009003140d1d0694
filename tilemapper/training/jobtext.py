"""A training job as the text of a job file, complete and readable."""

from __future__ import annotations

import json
import re
from typing import Any

from tilemapper.training.config import TrainingJob

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def job_text(job: TrainingJob) -> str:
    """The complete job as TOML, defaults included."""
    lines, tables = [], []
    for key, value in job.plain().items():
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *(f"{name} = {toml_value(v)}" for name, v in value.items())]
        elif key == "palette":
            for entry in value:
                tables += [
                    "",
                    "[[palette]]",
                    *(f"{name} = {toml_value(v)}" for name, v in entry.items()),
                ]
        else:
            lines.append(f"{key} = {toml_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def toml_value(value: Any) -> str:
    """A plain value as TOML; tables inside are written inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {toml_value(v)}" for name, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    # A JSON string is a TOML string, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml_value(name)
