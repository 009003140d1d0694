"""Bad, hostile and awkward rasters through ``tilemapper render`` with the identity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.corpus import awkward, hostile, lying_headers
from tests.corpus.case import REFUSED, Case
from tests.corpus.forks import Forks, Listener
from tests.corpus.judge import Judge
from tests.faults.table import count
from tilemapper.networks.card import ModelCard, card_text

FILES = {"lying headers": lying_headers, "awkward": awkward, "hostile": hostile}
# One of each kind that once ended badly, and the worst that a stranger could send.
SHORT = (
    "cut at 19253, directory last",
    "strip offsets of one value",
    "photometric 9",
    "values up to 1e-40",
    "matrix of zeros",
    "sidecar whose CRS is empty PROJ",
    "200000 px a side in tiles of 512",
    "JPEG 2000 whose tile is 1 px wide",
    "VRT of a file",
    "VRT of a server",
    "VRT of Python, trusted",
    "VRT as .msk",
    "sidecar that names a server",
    "mask that is a pipe",
    "a link to itself",
    "nodata but one pixel",
    "big-endian BigTIFF",
)


@pytest.fixture
def judge(forks: Forks, listener: Listener, tmp_path: Path) -> Iterator[Judge]:
    model = tmp_path / "identity"
    model.mkdir()
    text = card_text(ModelCard(name="identity", architecture="identity"))
    (model / "model.toml").write_text(text)
    judge = Judge(forks, listener, tmp_path, model)
    yield judge
    judge.close()


def faults_of(judge: Judge, cases: list[Case]) -> list[str]:
    found = {case.name: judge.faults(number, case) for number, case in enumerate(cases)}
    assert len(found) == len(cases), "two cases of one name"
    return [f"{name}: {'; '.join(faults)}" for name, faults in found.items() if faults]


def test_bad_rasters_are_refused_in_one_line_and_awkward_ones_rendered_right(judge: Judge):
    cases = [case for file in FILES.values() for case in file.cases() if case.name in SHORT]
    assert {case.name for case in cases} == set(SHORT)
    assert faults_of(judge, cases) == []


@pytest.mark.fault
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FILES)
def test_every_raster_of_the_corpus(judge: Judge, name: str):
    cases = list(FILES[name].cases())
    wrong = faults_of(judge, cases)
    refused = sum(case.outcome == REFUSED for case in cases)
    note = f"{refused} to refuse, {len(cases) - refused} to render right; 5 s, 1 GB, no connection"
    count(f"rasters: {name}", len(cases), len(wrong), note)
    assert wrong == []
