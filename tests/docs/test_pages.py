"""What the pages under docs/ show is what happens: their commands and their Python are run.

A page is followed from top to bottom in an empty folder of its own. ``console`` blocks are commands
after ``$``, ``sh`` blocks are scripts, ``python`` blocks share one namespace, and a ``toml`` block
whose first line is ``# NAME.toml`` is saved under that name.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from tilemapper.cli.main import cli, run
from tilemapper.cli.rio import tilemap

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

# Commands of other programs, and why each is not run. Everything else on a page is.
NOT_RUN = {
    "pip install": "installs; .ci/run does it with the wheel",
    "dask scheduler": "runs until it is stopped; tests/render/test_cluster.py starts one",
    "dask worker": "runs until it is stopped; tests/render/test_cluster.py starts some",
    "torchrun": "tests/training/test_parallel.py runs it",
    "make": "the targets are what runs the tests",
    "docker": "no daemon here",
    "sqlite3": "a program of its own",
    "rio shapes": "rasterio's own",
}
# Commands of ours that need what a page cannot bring, take long, or do not end: parsed, not run.
PARSED_ONLY = {
    r"--workers": "starts processes, 10 s; tests/render/test_cluster.py does",
    r"--doctor maps$": "examines a city of 1024 px; tests/render/test_doctor.py does",
    r"models export": "takes 10 s; tests/networks/test_export.py does",
    r"models import": "needs a foreign checkpoint; tests/networks/test_importers.py makes some",
    r"--scheduler": "needs a cluster; tests/render/test_cluster.py has one",
    r"^serve ": "runs until it is stopped; tests/serve starts it",
    r"s3://": "needs a server; tests/archive/test_stores.py has one",
    r"https?://": "needs a server",
}


def commands(text: str, kind: str) -> list[list[str]]:
    """The commands of a block, without what they print and without comments."""
    lines = text.splitlines()
    if kind == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    words = (shlex.split(line, comments=True) for line in lines)
    return [command for command in words if command]


def quicker(args: list[str], *, largest: int = 384) -> list[str]:
    """The same command on less: few steps of a small network, a city of at most ``largest`` px."""
    args = list(args)
    if args[0] == "train":
        for flag in ("--budget-minutes",):
            if flag in args:
                del args[args.index(flag) : args.index(flag) + 2]
        if "--resume" not in args:
            for setting in (
                "trainer.minutes=0", "trainer.steps=2", "trainer.batch=2",
                "trainer.evaluate_pairs=2",
                "trainer.calibration_batches=1", "trainer.precise_bn_batches=1",
                "networks.generator_arguments={width=4}",
            ):  # fmt: skip
                args += ["--set", setting]
    if args[0] == "sample" and "--size" in args:
        at = args.index("--size") + 1
        # The town is cut into pairs, of which some are held out.
        args[at] = str(min(max(largest, 640) if "town.tif" in args else largest, int(args[at])))
    return args


def smaller(code: str) -> str:
    """The same Python on a city that still has four blocks of 512 px."""
    return re.sub(r"height=\d+, width=\d+", "height=530, width=620", code)


def parse(args: list[str]) -> None:
    """Fails on what the command's own parser would refuse; nothing is run."""
    context = click.Context(cli, info_name="tilemapper")
    command: click.Command = cli
    while isinstance(command, click.Group):
        name, args = args[0], args[1:]
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    command.make_context(command.name, list(args), resilient_parsing=False)


def follow(command: list[str], errors: pytest.CaptureFixture[str]) -> None:
    """Runs one command of a page, or says why not."""
    line = " ".join(command)
    if any(line.startswith(beginning) for beginning in NOT_RUN):
        return
    if command[0] == "mkdir":
        Path(command[-1]).mkdir(parents=True, exist_ok=True)
        return
    if command[:2] == ["rio", "tilemap"]:
        assert run(tilemap, command[2:]) == 0, errors.readouterr().err
        return
    assert command[0] == "tilemapper", f"{line}: neither run nor listed in NOT_RUN"
    if any(re.search(pattern, " ".join(command[1:])) for pattern in PARSED_ONLY):
        parse(command[1:])
        return
    code = run(cli, quicker(command[1:]))
    said = errors.readouterr()
    # A stand-in of random weights may well be called bad by the doctor.
    assert code == 0 or (code == 1 and "--doctor" in command and "verdict:" in said.out), said.err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_can_be_followed(page, models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILEMAPPER_MODELS", str(models))
    namespace: dict[str, object] = {}
    for kind, text in BLOCK.findall(page.read_text()):
        if kind in ("console", "sh"):
            for command in commands(text, kind):
                follow(command, capsys)
        elif kind == "toml":
            name = text.splitlines()[0].removeprefix("# ").strip()
            if name.endswith(".toml"):
                (tmp_path / name).write_text(text)
        elif kind == "python":
            exec(compile(smaller(text), str(page), "exec"), namespace)


def test_every_block_says_what_it_is():
    known = {"console", "sh", "toml", "python", "text", "json", "html", "yaml", "ini"}
    for page in PAGES:
        text = page.read_text()
        assert text.count("\n```") % 2 == 0, page.name
        opened = re.findall(r"^```(\w*)$", text, re.MULTILINE)[::2]
        assert set(opened) <= known, (page.name, opened)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(found), f"{page.name}: {target}"


def test_every_page_is_in_the_index():
    index = (DOCS / "index.md").read_text()
    missing = [page.name for page in PAGES if f"({page.name})" not in index]
    assert missing in ([], ["index.md"])


def test_pictures_have_words_and_are_small():
    for page in PAGES:
        for words, target in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", page.read_text()):
            assert len(words) > 10, f"{page.name}: {target} needs words for those who cannot see it"
    for picture in DOCS.rglob("*.png"):
        assert picture.stat().st_size < 1_100_000, picture.name


def test_no_page_names_a_place_of_one_machine():
    for page in PAGES:
        assert not re.search(r"/(home|root|work|Users)/", page.read_text()), page.name
