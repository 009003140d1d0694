import pickle

import pytest
import torch
from torch import nn

from tests.networks.foreign import AladdinperssonUNet, JunyanzResNet, JunyanzUNet, randomise
from tilemapper.errors import ModelError, TargetError
from tilemapper.networks import importers
from tilemapper.networks.importers import import_checkpoint, read_checkpoint
from tilemapper.networks.model import open_model

SAID = {"direction": "AtoB", "gsd_m": 0.9}


FOREIGN = {
    "junyanz": JunyanzUNet,
    "junyanz depth 7": lambda: JunyanzUNet(depth=7),
    "junyanz instance norm": lambda: JunyanzUNet(norm=nn.InstanceNorm2d),
    "junyanz no norm": lambda: JunyanzUNet(norm=nn.Identity),
    "junyanz resnet": lambda: JunyanzResNet(width=4),
    "junyanz resnet batch": lambda: JunyanzResNet(width=4, blocks=6, norm=nn.BatchNorm2d),
    "junyanz resnet dropout": lambda: JunyanzResNet(width=4, blocks=2, dropout=True),
    "junyanz resnet no norm": lambda: JunyanzResNet(width=4, blocks=2, norm=nn.Identity),
    "aladdinpersson": AladdinperssonUNet,
    "aladdinpersson-reflect": lambda: AladdinperssonUNet(bottleneck_padding="reflect"),
}


def per_tile(network):
    """Eval mode, but norms as in train mode: each image by itself, dropout off."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    return network


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("norm_stats", ["running", "instance"])
def test_an_imported_generator_computes_what_the_foreign_one_does(tmp_path, kind, norm_stats):
    foreign = randomise(FOREIGN[kind]())
    needs_instance = any(isinstance(m, nn.InstanceNorm2d) for m in foreign.modules())
    state = {key: tensor.clone() for key, tensor in foreign.state_dict().items()}
    torch.save(
        {"state_dict": state, "optimizer": {}} if "aladdin" in kind else state, tmp_path / "g"
    )
    dialect = kind.split()[0]
    if norm_stats == "running" and needs_instance:
        with pytest.raises(ModelError, match="use --norm-stats instance"):
            read_checkpoint(tmp_path / "g", dialect=dialect, norm_stats=norm_stats)
        return
    _, ours = read_checkpoint(tmp_path / "g", dialect=dialect, norm_stats=norm_stats)
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    with torch.inference_mode():
        found = ours(image)
        wanted = (foreign.eval() if norm_stats == "running" else per_tile(foreign))(image)
    assert wanted.std() > 0.05  # not saturated, not dead
    assert (found - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_keys_and_missing_batch_counts_are_understood(tmp_path, wrapper):
    state = {
        f"{wrapper}{key}": tensor
        for key, tensor in JunyanzUNet(width=1).state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "g.pth")
    layout, _ = read_checkpoint(tmp_path / "g.pth", dialect="junyanz", norm_stats="running")
    assert layout.arguments["width"] == 1


def test_the_foreign_layouts_have_the_known_numbers_of_keys():
    assert len(JunyanzUNet(width=1).state_dict()) == 82
    assert len(AladdinperssonUNet(width=1).state_dict()) == 84


def test_an_import_leaves_a_model_that_opens_and_says_where_it_is_from(tmp_path):
    torch.save(randomise(JunyanzUNet(width=2)).state_dict(), tmp_path / "latest_net_G.pth")
    import_checkpoint(
        tmp_path / "latest_net_G.pth",
        tmp_path / "mine",
        dialect="junyanz",
        norm_stats="instance",
        **SAID,
    )
    model = open_model(tmp_path / "mine")
    assert (model.card.name, model.card.gsd_m, model.card.norm) == ("mine", 0.9, "instance")
    assert "latest_net_G.pth" in model.card.origin
    assert model.generator()(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)


def refused(path, dialect="junyanz", norm_stats="running"):
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path, dialect=dialect, norm_stats=norm_stats)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_runs_code_does_not_run_it(tmp_path, legacy):
    canary = tmp_path / "canary"
    state = {"state_dict": {"a": torch.zeros(1)}, "x": Canary(canary)}
    torch.save(state, tmp_path / "g", _use_new_zipfile_serialization=not legacy)
    assert "could run code" in refused(tmp_path / "g")
    (tmp_path / "bare").write_bytes(pickle.dumps(Canary(canary)))
    refused(tmp_path / "bare")
    assert not canary.exists()


def test_missing_empty_truncated_and_foreign_files_are_one_line(tmp_path):
    whole = tmp_path / "whole"
    torch.save(JunyanzUNet(width=1).state_dict(), whole)
    data = whole.read_bytes()
    assert "not found" in refused(tmp_path / "nix")
    for name, content in {
        "empty": b"",
        "half": data[: len(data) // 2],
        "cut": data[:-40],
        "text": b"no checkpoint at all",
    }.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)
    refused(tmp_path)


def test_wrong_dialects_and_wrong_contents_are_named(tmp_path):
    path = tmp_path / "g"
    flat = AladdinperssonUNet(width=1).state_dict()
    torch.save(flat, path)
    assert "use --dialect aladdinpersson" in refused(path)
    torch.save(JunyanzUNet(width=1).state_dict(), path)
    assert "use --dialect junyanz" in refused(path, dialect="aladdinpersson-reflect")
    torch.save(nn.Linear(2, 2).state_dict(), path)
    assert "no generator of a known dialect" in refused(path)
    torch.save([1, 2], path)
    assert "without a state dict" in refused(path)
    torch.save({"state_dict": {"epoch": 3}}, path)
    assert "without a state dict" in refused(path)
    torch.save({key: t for key, t in flat.items() if key != "up3.conv.0.weight"}, path)
    assert "misses up3.conv.0.weight" in refused(path, "aladdinpersson")
    torch.save(flat | {"attention.weight": torch.zeros(1)}, path)
    assert "attention.weight has no place" in refused(path, "aladdinpersson")
    torch.save(flat | {"final_up.0.bias": torch.full((3,), float("nan"))}, path)
    assert "not finite" in refused(path, "aladdinpersson")
    torch.save(flat | {"up2.conv.0.weight": torch.zeros(3, 3, 4, 4)}, path)
    assert "ups.1.conv.weight is (3, 3, 4, 4)" in refused(path, "aladdinpersson")
    torch.save(flat | {"initial_down.0.weight": torch.zeros(700, 3, 4, 4)}, path)
    assert "width is 700" in refused(path, "aladdinpersson")


def test_biases_and_gains_that_a_generator_always_has_are_missed(tmp_path):
    """A missing tensor is no zero: only what a layout can lack may be filled in."""
    instance = JunyanzUNet(width=1, norm=nn.InstanceNorm2d)
    down = "model.model.1.model.1.bias"  # of the first convolution before a norm
    for dialect, network, lost in (
        ("junyanz", JunyanzUNet(width=1), "model.model.3.bias"),
        ("junyanz", JunyanzUNet(width=1, norm=nn.Identity), "model.model.3.bias"),
        ("junyanz", instance, "model.model.0.bias"),
        ("junyanz", instance, down),
        ("junyanz", JunyanzUNet(width=1), "model.model.1.model.2.weight"),
        ("junyanz", JunyanzResNet(width=1), "model.26.bias"),
        ("aladdinpersson", AladdinperssonUNet(width=1), "final_up.0.bias"),
        ("aladdinpersson", AladdinperssonUNet(width=1), "initial_down.0.bias"),
        ("aladdinpersson", AladdinperssonUNet(width=1), "bottleneck.0.bias"),
    ):
        state = network.state_dict()
        del state[lost]
        torch.save(state, tmp_path / "g")
        assert f"misses {lost};" in refused(tmp_path / "g", dialect, "instance")
    gains = {f"down{k}.conv.1.weight" for k in range(1, 7)}
    gains |= {f"up{k}.conv.1.weight" for k in range(1, 8)}
    flat = AladdinperssonUNet(width=1).state_dict()
    torch.save({key: t for key, t in flat.items() if key not in gains}, tmp_path / "g")
    for norm_stats in ("running", "instance"):
        said = refused(tmp_path / "g", "aladdinpersson", norm_stats)
        assert "misses down1.conv.1.weight;" in said


def test_a_generator_of_four_bands_is_refused_before_anything_is_written(tmp_path):
    for dialect, network, first in (
        ("junyanz", JunyanzUNet(width=1), "model.model.0.weight"),
        ("junyanz", JunyanzResNet(width=1), "model.1.weight"),
        ("aladdinpersson", AladdinperssonUNet(width=1), "initial_down.0.weight"),
    ):
        state = network.state_dict()
        width, _, *kernel = state[first].shape
        torch.save(state | {first: torch.zeros(width, 4, *kernel)}, tmp_path / "g")
        with pytest.raises(ModelError, match="g: the generator takes 4 band"):
            import_checkpoint(
                tmp_path / "g", tmp_path / "m", dialect=dialect, norm_stats="instance", **SAID
            )
        assert not (tmp_path / "m").exists()


def test_an_import_never_writes_into_a_folder_that_holds_something(tmp_path):
    torch.save(JunyanzUNet(width=1).state_dict(), tmp_path / "g")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(TargetError, match="exists already"):
        import_checkpoint(
            tmp_path / "g", tmp_path / "mine", dialect="junyanz", norm_stats="running", **SAID
        )


def test_an_import_leaves_the_model_of_another_that_ended_meanwhile(tmp_path, monkeypatch):
    torch.save(JunyanzUNet(width=1).state_dict(), tmp_path / "g")
    real, options = read_checkpoint, {"dialect": "junyanz", "norm_stats": "running", **SAID}

    def meanwhile(path, **said):
        monkeypatch.setattr(importers, "read_checkpoint", real)
        import_checkpoint(path, tmp_path / "m", licence="the first", **options)
        return real(path, **said)

    monkeypatch.setattr(importers, "read_checkpoint", meanwhile)
    with pytest.raises(TargetError, match="exists already"):
        import_checkpoint(tmp_path / "g", tmp_path / "m", licence="the second", **options)
    model = open_model(tmp_path / "m")
    model.generator()
    assert model.card.licence == "the first"


def test_what_torch_does_not_check_is_checked(tmp_path):
    torch.manual_seed(0)
    state = randomise(JunyanzUNet(width=1)).state_dict()
    path = tmp_path / "g"
    torch.save(state, path)
    data = path.read_bytes()
    at = len(data) // 2  # amid the weights
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert "the checksum of" in refused(path)
    first = "model.model.0.weight"
    one = torch.ones(1)
    for tensor in (
        one.expand(20000, 3, 4, 4),  # a million numbers in one
        state[first].to_sparse(),
        torch.empty(1, 3, 4, 4, device="meta"),
    ):
        torch.save({**state, first: tensor}, path)
        assert "its tensors claim" in refused(path)
    torch.save({**state, first: state[first].to(torch.float8_e4m3fn)}, path)
    assert "not finite" in refused(path)
    torch.save({"module." * 5000 + "a": one}, path)
    assert "no generator of a known dialect" in refused(path)
