"""Lists what tilemapper runs on, from what is installed here.

    python -m tests.security.sbom            prints the licence table of locks/licences.md

A CycloneDX list of the whole environment is made by `make sbom`, with cyclonedx-bom.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RUNTIME = ("train", "archive", "xarray", "onnx", "serve", "dashboard")
# Where a package's own words are a whole text, or missing: read in its licence file.
READ = {}
# Trove classifiers that say it in other words than SPDX.
SHORT = {
    "MIT License": "MIT",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def closure(
    project: Mapping[str, Any], extras: Iterable[str]
) -> set[tuple[str, importlib.metadata.Distribution]]:
    """All packages that the project needs with these extras, as far as they are installed here."""
    waiting = [Requirement(line) for line in project["dependencies"]]
    for extra in extras:
        waiting += [Requirement(line) for line in project["optional-dependencies"][extra]]
    seen: dict[tuple[str, frozenset[str]], importlib.metadata.Distribution] = {}
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        try:
            seen[key] = importlib.metadata.distribution(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in seen[key].requires or ():
            more = Requirement(line)
            asked = ({"extra": extra} for extra in ("", *wanted.extras))
            if more.marker is None or any(more.marker.evaluate(one) for one in asked):
                waiting.append(more)
    return {(name, found) for (name, _), found in seen.items()}


def licence_of(name: str, found: importlib.metadata.Distribution) -> str:
    """A package's licence in a few words, as it says itself; ``unknown`` if it does not."""
    if name in READ:
        return READ[name]
    expression = found.metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = found.metadata.get_all("Classifier") or []
    said = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: ")]
    said = [SHORT.get(line, line) for line in said if line != "OSI Approved"]
    if said:
        return " OR ".join(said)
    text = str(found.metadata.get("License") or "").strip()
    return text if text and "\n" not in text and len(text) < 60 else "unknown"


def table() -> str:
    """Markdown: name, version, licence and home of each package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = ["| package | version | licence |", "|---|---|---|"]
    for name, found in sorted(closure(project, RUNTIME), key=lambda pair: pair[0]):
        version = re.sub(r"\+.*", "", found.version)
        lines.append(f"| {name} | {version} | {licence_of(name, found)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
