"""What tilemapper depends on: declared, used, fixed to a version and to a file, and licensed."""

from __future__ import annotations

import ast
import gc
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.security import sbom

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = ("train", "archive", "xarray", "onnx", "serve", "dashboard")
# The name that is imported, where it is not the package's own.
IMPORTED = {"pillow": "PIL", "rio-cogeo": "rio_cogeo"}
# Used without an import statement of ours, but asked for by name: dask serves its dashboard with
# bokeh and makes TLS certificates with cryptography; boto3 is imported by its name.
BY_NAME = {"bokeh", "boto3", "cryptography"}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imports(path: Path) -> set[str]:
    """Top names of all modules that a file imports, or asks for by name."""
    gc.disable()
    try:
        tree = ast.parse(path.read_text())
    finally:
        gc.enable()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(f"'{node.value}'")
    return found


@pytest.fixture(scope="module")
def used() -> set[str]:
    return set().union(*(imports(path) for path in (ROOT / "tilemapper").rglob("*.py")))


def declared() -> set[str]:
    found = names(PROJECT["dependencies"])
    for extra in RUNTIME:
        found |= names(PROJECT["optional-dependencies"][extra])
    return found


def module_of(package: str) -> str:
    return IMPORTED.get(package, package.replace("-", "_"))


def test_every_dependency_is_used(used):
    idle = {name for name in declared() if module_of(name) not in used}
    assert idle == BY_NAME
    for name in BY_NAME:
        assert f"'{name}'" in used, name


def test_every_import_is_declared(used):
    ours = {module_of(name) for name in declared()} | {"tilemapper"}
    foreign = {name for name in used if not name.startswith("'")} - set(sys.stdlib_module_names)
    assert foreign <= ours


def locked() -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package in the file of hashes."""
    found = {}
    for line in (ROOT / "locks" / "linux-x86_64-cp311.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin, *hashes = line.split()
            name, _, version = pin.partition("==")
            found[name] = version, hashes
    return found


def constrained() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in pins}


def test_every_locked_file_has_a_hash_and_the_version_of_the_constraints():
    constraints = constrained()
    assert len(locked()) > 100
    for name, (version, hashes) in locked().items():
        assert constraints.get(name, version) == version, name
        assert hashes, name
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), name


def test_all_that_runs_is_locked_but_torch_and_the_dashboard():
    needed = {name for name, _ in sbom.closure(PROJECT, RUNTIME)}
    assert needed - set(locked()) <= {"torch"}


def test_every_package_that_runs_has_a_licence_on_the_page():
    page = (ROOT / "locks" / "licences.md").read_text()
    listed = dict(re.findall(r"^\| ([a-z0-9.-]+) \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE))
    assert set(locked()) | {"torch"} <= set(listed)
    strict = {n for n, licence in listed.items() if re.search(r"\bA?GPL", licence)}
    assert strict == set(), "copyleft that reaches who links with it"
    assert not [name for name, licence in listed.items() if licence.strip() in ("", "unknown")]


def test_the_constraints_are_what_is_installed_where_the_tests_run():
    wrong = {}
    for name, version in constrained().items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if found.partition("+")[0] != version.partition("+")[0]:
            wrong[name] = found, version
    if sys.version_info[:2] == (3, 11):
        assert not wrong
