import errno
import hashlib
import os
import pickle
import threading

import numpy as np
import pytest
import safetensors.numpy
import torch

from tests.networks.foreign import randomise
from tilemapper.errors import DiskFullError, ModelError, TargetError
from tilemapper.networks import model as model_module
from tilemapper.networks.build import build_generator
from tilemapper.networks.card import card_text
from tilemapper.networks.model import ModelCard, find_models, list_models, open_model, save_model

ARGUMENTS = {"width": 4, "depth": 6}


def card(**changes):
    return ModelCard(**({"name": "m", "architecture": "unet", "arguments": ARGUMENTS} | changes))


def generator(seed=0):
    return randomise(build_generator("unet", ARGUMENTS, 3), seed).eval()


@pytest.fixture
def saved(tmp_path):
    return save_model(tmp_path / "m", card(), generator(), "# The card\n")


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No models but those that the test puts into this folder."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(model_module, "_folders", lambda: [folder])
    return folder


def rewrite(saved, data):
    """Puts other weights there, with a card that says their sha256."""
    (saved.folder / "generator.safetensors").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    card = saved.card.model_copy(update={"weights_sha256": digest})
    (saved.folder / "model.toml").write_text(card_text(card))
    return open_model(saved.folder)


def test_a_saved_model_gives_the_generator_back_to_the_rounding_of_float16(saved):
    found = open_model(saved.folder).generator()
    assert not found.training
    assert {tensor.dtype for tensor in found.parameters()} == {torch.float32}
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        # float16 keeps 11 bits; some layers deep this is below half a grey level (1/255).
        assert (found(image) - generator()(image)).abs().mean() < 2e-3


def test_saving_what_was_opened_gives_the_same_bytes(saved, tmp_path):
    again = save_model(tmp_path / "again", saved.card, saved.generator(), "")
    assert again.card.weights_sha256 == saved.card.weights_sha256


def test_norm_statistics_outside_float16_survive(tmp_path):
    network = generator()
    network.ups[0].norm.running_var.fill_(1e6)
    network.ups[1].norm.running_var.fill_(1e-9)
    found = save_model(tmp_path / "m", card(), network, "").generator()
    assert found.ups[0].norm.running_var[0] == 1e6
    assert found.ups[1].norm.running_var[0] == np.float32(1e-9)


def test_a_model_folder_holds_card_weights_and_readme_and_nothing_else(saved):
    names = sorted(path.name for path in saved.folder.iterdir())
    assert names == ["README.md", "generator.safetensors", "model.toml"]
    assert [path.name for path in saved.folder.parent.iterdir()] == ["m"]


def test_saving_over_a_model_replaces_it_and_leaves_other_files(saved):
    (saved.folder / "notes.txt").write_text("mine")
    newer = save_model(saved.folder, card(origin="new"), generator(seed=1), "# New\n")
    found = open_model(saved.folder)
    assert found.card == newer.card
    assert found.card.weights_sha256 != saved.card.weights_sha256
    found.generator()
    names = sorted(path.name for path in saved.folder.iterdir())
    assert names == ["README.md", newer.card.weights, "model.toml", "notes.txt"]


def test_two_that_replace_a_model_at_once_do_not_remove_each_others_weights(saved, monkeypatch):
    real, others = model_module._write_folder, []

    def between(folder, files, *, replacing):
        real(folder, files, replacing=replacing)
        if not others:  # the card and weights of the first stand; the second begins
            work = (folder, card(origin="second"), generator(seed=2), "")
            others.append(threading.Thread(target=save_model, args=work))
            others[0].start()
            others[0].join(1)

    monkeypatch.setattr(model_module, "_write_folder", between)
    save_model(saved.folder, card(origin="first"), generator(seed=1), "")
    others[0].join()
    model = open_model(saved.folder)
    model.generator()
    assert model.card.origin == "second"
    assert [path.name for path in saved.folder.glob("*.safetensors")] == [model.card.weights]


@pytest.mark.parametrize("replace", [True, False])
def test_a_new_model_that_comes_while_another_is_saved_is_replaced_whole_or_kept(
    tmp_path, monkeypatch, replace
):
    folder, real, first = tmp_path / "m", model_module._write_folder, []

    def meanwhile(place, files, *, replacing):
        if not first:
            first.append(True)
            save_model(folder, card(origin="first"), generator(seed=1), "")
        real(place, files, replacing=replacing)

    monkeypatch.setattr(model_module, "_write_folder", meanwhile)
    work = (folder, card(origin="second"), generator(seed=2), "")
    if replace:
        save_model(*work)
    else:
        with pytest.raises(TargetError, match="exists already; choose a new folder"):
            save_model(*work, replace=False)
    model = open_model(folder)
    model.generator()
    assert model.card.origin == ("second" if replace else "first")
    assert [path.name for path in folder.glob("*.safetensors")] == [model.card.weights]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_model_that_was_replaced_since_it_was_opened_is_told_from_a_damaged_one(saved):
    save_model(saved.folder, card(origin="new"), generator(seed=1), "")
    with pytest.raises(ModelError, match="another model was put there since"):
        saved.generator()


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFullError), (5, TargetError)])
def test_whatever_call_fails_the_old_model_or_the_new_one_stands(
    tmp_path, monkeypatch, over, number, kind
):
    """Fails the nth fsync or rename, for all n until a save gets through."""
    folder = tmp_path / "m"
    real = {"fsync": os.fsync, "rename": os.rename, "replace": os.replace}
    for fail_at in range(1, 40):
        if over and not folder.exists():
            save_model(folder, card(origin="old"), generator(), "")
        calls = [0]

        def failing(name, calls=calls, fail_at=fail_at):
            def call(*arguments, **options):
                calls[0] += 1
                if calls[0] == fail_at:
                    raise OSError(number, "planted")
                return real[name](*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, failing(name))
            try:
                save_model(folder, card(origin="new"), generator(seed=1), "")
                assert calls[0] < fail_at, "a call that failed is not told"
                break
            except kind:
                pass
        if folder.exists():
            model = open_model(folder)
            model.generator()
            assert model.card.origin in {"old", "new"}
        else:
            assert not over
        assert not list(tmp_path.rglob("*.tmp"))
    assert fail_at > 3
    assert open_model(folder).card.origin == "new"


def test_weights_with_nan_are_not_saved(tmp_path):
    network = generator()
    network.head.conv.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"head\.conv\.weight holds values that are not finite"):
        save_model(tmp_path / "m", card(), network, "")
    assert not (tmp_path / "m").exists()


def test_weights_beyond_float16_are_not_saved(tmp_path):
    network = generator()
    network.head.conv.weight.data[0, 0, 0, 0] = 1e5
    with pytest.raises(ModelError, match=r"not finite as torch\.float16"):
        save_model(tmp_path / "m", card(), network, "")


def test_a_card_that_does_not_fit_the_generator_is_not_saved(tmp_path):
    with pytest.raises(ModelError, match=r"downs\.0\.conv\.weight is \(4, 3, 4, 4\)"):
        save_model(tmp_path / "m", card(arguments={"width": 5, "depth": 6}), generator(), "")
    assert not (tmp_path / "m").exists()


def test_one_flipped_bit_anywhere_in_the_weights_is_found(saved):
    path = saved.folder / "generator.safetensors"
    whole = path.read_bytes()
    for place in (0, 9, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"sha256 is .*damaged") as caught:
            open_model(saved.folder).generator()
        assert str(caught.value).startswith(str(path))


def test_missing_and_truncated_weights_are_found(saved):
    path = saved.folder / "generator.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="sha256"):
        saved.generator()
    path.unlink()
    with pytest.raises(ModelError, match=r"cannot be read \(No such file"):
        saved.generator()


def test_a_pipe_in_place_of_the_weights_does_not_hang(saved):
    path = saved.folder / "generator.safetensors"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ModelError, match="not a regular file"):
        saved.generator()


def test_a_file_far_larger_than_the_architecture_is_not_read(saved):
    path = saved.folder / "generator.safetensors"
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a hole: no disk, but a terabyte to whoever reads it
    with pytest.raises(ModelError, match="1099511627776 bytes"):
        saved.generator()


def test_a_card_that_claims_a_huge_network_allocates_nothing(saved):
    text = (saved.folder / "model.toml").read_text().replace("width = 4", "width = 512")
    text = text.partition("\n")[2]  # its checksum
    (saved.folder / "model.toml").write_text(text)
    with pytest.raises(ModelError, match=r"architecture needs \(512, 3, 4, 4\)"):
        open_model(saved.folder).generator()


def test_a_header_that_claims_a_huge_tensor_allocates_nothing(saved):
    header = b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'
    lying = rewrite(saved, len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="not readable as safetensors"):
        lying.generator()


def test_nan_surplus_missing_and_integer_tensors_are_found(saved):
    path = saved.folder / "generator.safetensors"
    tensors = safetensors.numpy.load(path.read_bytes())
    key = "head.conv.weight"
    bad = tensors[key].copy()
    bad[0, 0, 0, 0] = np.nan
    cases = [
        (tensors | {key: bad}, "head.conv.weight holds values that are not finite"),
        (tensors | {"extra": bad}, "has extra"),
        ({k: v for k, v in tensors.items() if k != key}, "misses head.conv.weight"),
        (tensors | {key: tensors[key].astype(np.int16)}, "not finite numbers"),
    ]
    for changed, message in cases:
        saved = rewrite(saved, safetensors.numpy.save(changed))
        with pytest.raises(ModelError, match=message):
            saved.generator()


def test_a_card_without_weights_for_a_network_that_needs_them_is_refused(tmp_path):
    (tmp_path / "model.toml").write_text('name = "m"\narchitecture = "unet"\n[arguments]\nwidth=1')
    with pytest.raises(ModelError, match="names no weights"):
        open_model(tmp_path).generator()


def test_a_stand_in_is_saved_without_weights(tmp_path):
    made = card(architecture="constant", arguments={"value": 9})
    model = save_model(tmp_path / "c", made, build_generator("constant", {"value": 9}, 3), "")
    assert sorted(path.name for path in model.folder.iterdir()) == ["README.md", "model.toml"]
    out = open_model(tmp_path / "c").generator()(torch.zeros(1, 3, 8, 8))
    assert out[0, 0, 0, 0].item() == pytest.approx(9 / 127.5 - 1)


def test_a_model_travels_by_pickle_to_a_worker(saved):
    assert pickle.loads(pickle.dumps(saved)) == saved


def test_a_name_is_found_and_an_unknown_one_lists_what_is_there(alone):
    save_model(alone / "first", card(name="first"), generator(), "")
    save_model(alone / "second", card(name="second"), generator(), "")
    assert open_model("second").folder == alone / "second"
    with pytest.raises(ModelError, match=r"nix: no model .* there are: first, second;"):
        open_model("nix")


@pytest.mark.parametrize(
    "path", ["some/first", "~nosuchuser/first", "x" * 300, "x" * 300 + "/first"]
)
def test_a_path_that_is_not_there_is_not_looked_up_as_a_name(alone, path):
    save_model(alone / "first", card(), generator(), "")
    with pytest.raises(ModelError, match=f"{path}: no model of this name or path"):
        open_model(path)


def test_a_model_that_is_being_saved_is_in_no_list(alone):
    save_model(alone / "first", card(), generator(), "")
    (alone / "first").rename(alone / ".first.a1b2.tmp")
    assert list_models() == []


def test_a_damaged_card_is_left_out_of_the_list_and_reported(alone):
    save_model(alone / "first", card(), generator(), "")
    (alone / "worse").mkdir()
    (alone / "worse" / "model.toml").write_text("name = 1")
    assert [model.folder.name for model in list_models()] == ["first"]
    assert "worse" in str(find_models()[1][0])
    with pytest.raises(ModelError, match="worse"):
        open_model("worse")


def test_the_variable_names_folders_that_come_first(monkeypatch, tmp_path):
    for place in ("a", "b"):
        save_model(tmp_path / place / "maps", card(origin=place), generator(), "")
    folders = os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")])
    monkeypatch.setenv("TILEMAPPER_MODELS", folders)
    assert open_model("maps").card.origin == "a"
