import math
import sys

import numpy as np
import pytest
import torch

from tests.networks.foreign import randomise
from tilemapper.errors import ModelError
from tilemapper.networks import export
from tilemapper.networks.build import build_generator
from tilemapper.networks.export import onnx_model
from tilemapper.networks.folding import fold_norms
from tilemapper.networks.model import ModelCard, PaletteClass, save_model

PALETTE = tuple(PaletteClass(name=f"c{k}", colour=(k, k, k)) for k in range(4))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    arguments = {"width": 2, "depth": 5, "upsample": "resize", "padding": "reflect"}
    network = randomise(build_generator("unet", arguments, 4))
    card = ModelCard(
        name="m",
        architecture="unet",
        arguments=arguments,
        head="palette",
        palette=PALETTE,
        tile=64,
    )
    return save_model(tmp_path_factory.mktemp("models") / "m", card, network, "")


def test_the_onnx_file_computes_the_generator_for_any_batch(model):
    import onnx
    import onnxruntime

    data = onnx_model(model)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    generator = model.generator()
    for batch in (1, 2, 5):
        image = np.random.default_rng(batch).uniform(-1, 1, (batch, 3, 64, 64))
        image = image.astype(np.float32)
        (found,) = session.run(["map"], {"image": image})
        with torch.inference_mode():
            wanted = generator(torch.from_numpy(image)).numpy()
        assert found.shape == (batch, 4, 64, 64)
        assert np.abs(found - wanted).max() <= 1e-4
    properties = {p.key: p.value for p in onnx.load_from_string(data).metadata_props}
    assert 'name = "c3"' in properties["tilemapper_card"]


def test_an_onnx_file_that_computes_something_else_is_not_handed_out(model, monkeypatch):
    monkeypatch.setattr(export, "_traced", lambda *_: _identity_onnx())
    with pytest.raises(ModelError, match="differs from torch by"):
        onnx_model(model)


def test_an_onnx_file_may_lose_what_torch_loses_in_float32(model, monkeypatch):
    monkeypatch.setattr(export, "_differences", lambda *_: (3e-4, 1e-4))
    assert onnx_model(model)


@pytest.mark.parametrize("found", [(3e-4, 1e-5), (math.nan, math.nan)])
def test_an_onnx_file_that_loses_more_is_not_handed_out(model, monkeypatch, found):
    monkeypatch.setattr(export, "_differences", lambda *_: found)
    with pytest.raises(ModelError, match=f"by {found[0]:.2g}, 0.0001 is allowed"):
        onnx_model(model)


def test_what_float32_loses_is_told_apart_from_what_onnx_loses(model):
    import onnxruntime

    data, generator = onnx_model(model), fold_norms(model.generator())
    onnx, torchs = export._differences(onnxruntime, data, generator, model)
    assert 0 < torchs < 1e-4
    with torch.no_grad():
        next(p for p in generator.parameters() if p.dim() == 4).mul_(1.5)
    off, still = export._differences(onnxruntime, data, generator, model)
    assert off > 100 * onnx
    assert still < 1e-4


def _identity_onnx():
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, 64, 64])
        for name, channels in (("image", 3), ("map", 4))
    ]
    channel = helper.make_tensor("places", TensorProto.INT64, [4], [0, 1, 2, 0])
    node = helper.make_node("Gather", ["image", "places"], ["map"], axis=1)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [channel])
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra_one_line_says_how_to_install_it(model, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=r"pip install 'tilemapper\[onnx\]'"):
        onnx_model(model)
