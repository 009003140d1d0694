"""What travels between client and workers, and does not arrive or does not stay."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tilemapper.errors import ModelError, StagingError
from tilemapper.networks.model import Model, open_model
from tilemapper.render import workers
from tilemapper.render.journal import Receipt


def test_a_block_of_which_a_file_did_not_arrive_is_refused_as_damaged(tmp_path):
    receipt = Receipt("b0", {"map.tiles": "0" * 64}, {}, any_valid=True, any_invalid=False, tiles=4)
    with pytest.raises(StagingError, match="block b0 arrived damaged"):
        workers.stage_files(tmp_path, receipt, {})
    assert not any(tmp_path.iterdir())


def test_a_sent_model_whose_folder_was_swept_is_asked_for_again(models, tmp_path, monkeypatch):
    """A worker that serves for weeks outlives what lies in temporary folders."""
    monkeypatch.setattr(workers, "_SENT", {})
    model = open_model(models / "unet")
    digest, files = model.card.digest, workers.model_files(model)
    far = Model(model.card, Path("/nowhere/model"))
    order = SimpleNamespace(plan=SimpleNamespace(model_digest=digest), model=far)
    for lost in ("weights", "folder"):
        workers.take_model(digest, files, tmp_path / "scratch")
        folder = workers.model_of(order).folder
        if lost == "weights":
            (folder / model.card.weights).unlink()
        else:
            shutil.rmtree(folder)
        with pytest.raises(ModelError):
            workers.model_of(order)
    workers.take_model(digest, files, tmp_path / "scratch")
    assert workers.model_of(order).generator()
