"""Imports point downwards only, and heavy modules stay where they belong."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tilemapper"
# what each package may import from; design: raster and networks at the bottom, cli on top
MAY_IMPORT = {
    "cli": {"serve", "api", "archive", "report", "render", "training", "raster", "networks"},
    "api": {"archive", "report", "render", "training", "raster", "networks"},
    "archive": {"render", "report", "raster", "networks"},
    "serve": {"render", "raster", "networks"},
    "report": {"raster", "networks"},
    "render": {"raster", "networks"},
    "training": {"raster", "networks"},
    "networks": set(),
    "raster": set(),
}
# no room of their own: words and numbers without any import from the package
KNOWN_TO_ALL = {"errors", "extras", "memory", "notebook", "paths", "toml", "__version__"}
ONLY_IN = {
    "click": {"cli"},
    "tqdm": {"cli"},
    # lazy.py knows dask's arrays alone: a lattice of blocks that the user's own dask computes.
    # It starts, finds and spreads nothing; whatever talks to a cluster stays in cluster.py.
    "dask": {"render/cluster", "render/lazy.py"},
    "xarray": {"render/lazy.py"},
    "distributed": {"render/cluster"},
}
PURE = ("raster/lattice.py", "raster/blend.py", "raster/fill.py")

FILES = sorted(PACKAGE.rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    """The module; hypothesis hooks into the garbage collector, which upsets the parser."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imported(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_downwards_only(path):
    room = relative(path).split("/")[0]
    if room not in MAY_IMPORT:
        return
    reached = {name.split(".")[1] for name in imported(path) if name.startswith("tilemapper.")}
    assert reached - {room, *KNOWN_TO_ALL} <= MAY_IMPORT[room]


def test_what_all_know_knows_nothing():
    for name in KNOWN_TO_ALL - {"__version__"}:
        modules = imported(PACKAGE / f"{name}.py")
        modules = {module for module in modules if not module.startswith("tilemapper.errors.")}
        reached = {module.split(".")[0] for module in modules}
        assert reached <= sys.stdlib_module_names, name


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_heavy_modules_stay_in_their_place(path):
    tops = {name.split(".")[0] for name in imported(path)}
    for module, places in ONLY_IN.items():
        if module in tops:
            rooms = {relative(path), *(str(room) for room in Path(relative(path)).parents)}
            assert rooms & places, module
    if relative(path) in PURE:
        assert not tops & {"torch", "rasterio"}


def test_the_lazy_door_knows_no_more_of_dask_than_its_arrays():
    names = {name for name in imported(PACKAGE / "render/lazy.py") if name.startswith("dask")}
    assert names == {"dask.array"}


def test_rasters_are_opened_in_two_rooms_only():
    places = {
        relative(path)
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "rasterio.open"
    }
    assert places
    assert all(name.startswith("raster/") or name == "render/staging.py" for name in places)


@pytest.mark.parametrize(
    "code",
    ["import tilemapper", "import tilemapper.cli.main", "import tilemapper.cli.rio"],
)
def test_what_only_lists_commands_loads_nothing_heavy(code):
    check = (
        f"{code}; import sys; print([m for m in ('torch','dask','rasterio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


LOADED = """
import sys
from tilemapper.__main__ import main
for words in " ".join(sys.argv[1:]).split(" , "):
    sys.argv[1:] = words.split(" ")
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, words
    heavy = ("torch", "torch._dynamo", "dask")
    print([m for m in heavy if m in sys.modules], file=sys.stderr)
"""


def test_what_opens_no_weights_does_without_torch(tmp_path, make_raster, models):
    """It takes two seconds to load, every night for an archive in which nothing has changed.

    Its compiler takes two more, and a render compiles nothing.
    """
    (tmp_path / "in").mkdir()
    make_raster(40, 40, "in/scene.tif")
    job = tmp_path / "nightly.toml"
    job.write_text(
        'kind = "archive"\n[source]\nscenes = ["in"]\n[output]\ntemplate = "out/{stem}_map.tif"\n'
        f'[render]\nmodel = "{models / "unet"}"\ndevice = "cpu"\n'
    )

    def loaded(*commands: str) -> list[str]:
        """What stands loaded after each command, one after another in a process of their own."""
        program = [sys.executable, "-c", LOADED, *" , ".join(commands).split()]
        done = subprocess.run(program, capture_output=True, text=True, check=True)
        return [line for line in done.stderr.splitlines() if line.startswith("[")]

    assert loaded(f"batch {job} -q") == ["['torch']"]  # the scene is rendered
    nothing_to_load = (
        "--help", "render --help", "models list", f"status {job}", f"batch {job} --dry-run",
        f"batch {job} -q",
    )  # fmt: skip
    assert loaded(*nothing_to_load) == ["[]"] * len(nothing_to_load)
