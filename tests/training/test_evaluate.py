import csv
import io
import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from tests.training.images import make_map, make_pair, write_side_by_side
from tilemapper.errors import OptionError, PairError
from tilemapper.networks.build import build_generator
from tilemapper.networks.model import ModelCard, PaletteClass, save_model
from tilemapper.training.evaluate import (
    CONSTANT,
    EXPECTED,
    MODEL,
    at_protocol_size,
    evaluate_model,
)
from tilemapper.training.features import frechet_distance, kernel_distance
from tilemapper.training.legend import MAPS_LEGEND
from tilemapper.training.metrics import check_figures, measure_maps
from tilemapper.training.pairs import open_pairs
from tilemapper.training.prediction import Prediction, at_size, whole_image_predictor
from tilemapper.training.sheet import write_sheet


@pytest.fixture
def pairs(tmp_path):
    return open_pairs(write_side_by_side(tmp_path / "pairs", 6, size=80))


def perfect(source):
    """A predictor that knows the true map of every source image."""
    truth = {a.tobytes(): b for a, b in map(source.load, range(len(source)))}
    return lambda image: Prediction(truth[image.tobytes()])


def noisy(source):
    """As `perfect`, with noise that grows from pair to pair."""
    truth = {}
    for i in range(len(source)):
        image, target = source.load(i)
        noise = np.random.default_rng(i).normal(0, 2 + 6 * i, target.shape)
        truth[image.tobytes()] = np.clip(target + noise, 0, 255).astype(np.uint8)
    return lambda image: Prediction(truth[image.tobytes()])


def test_a_perfect_model_stands_above_the_constant_colour_in_every_figure(pairs):
    found = evaluate_model(perfect(pairs), pairs, range(6))
    model, constant = (found.row(who, "256").metrics.mean() for who in (MODEL, CONSTANT))
    assert model["road_f1"] == model["ssim"] == 1
    assert constant["road_f1"] == constant["sharpness"] == 0
    assert model["psnr"] > constant["psnr"] > 10
    assert {(row.who, row.scale) for row in found.rows} == {
        (who, scale) for who in (MODEL, CONSTANT) for scale in ("256", "native")
    }


def test_the_figures_at_native_scale_are_those_of_the_images_as_they_are(pairs):
    found = evaluate_model(noisy(pairs), pairs, [3])
    image, truth = pairs.load(3)
    made = noisy(pairs)(image).picture
    native = found.row(MODEL, "native").metrics.mean()
    assert native["psnr"] == measure_maps(made[None], truth[None]).mean()["psnr"]
    small = found.row(MODEL, "256").metrics.mean()
    pair = at_protocol_size(made)[None], at_protocol_size(truth)[None]
    assert small["psnr"] == measure_maps(*pair).mean()["psnr"]


def test_a_prediction_of_another_size_is_judged_at_256_only(pairs):
    halved = at_size(lambda image: Prediction(image), 40)
    assert halved(pairs.load(0)[0]).picture.shape == (40, 40, 3)
    found = evaluate_model(halved, pairs, range(2))
    assert found.row(MODEL, "native") is None
    assert found.row(MODEL, "256") is not None


def test_expected_colours_give_the_psnr_of_the_headline_and_pictures_the_rest(pairs):
    truth = perfect(pairs)

    def predict(image):
        return Prediction(picture=truth(image).picture, expected=image)

    found = evaluate_model(predict, pairs, range(3))
    head = found.headline()
    assert head["road_f1"] == 1
    assert head["psnr"] == found.row(EXPECTED, "256").metrics.mean()["psnr"] < 40


def test_baselines_stand_in_rows_of_their_own(pairs):
    found = evaluate_model(perfect(pairs), pairs, range(2), baselines={"l1": noisy(pairs)})
    assert found.row("l1", "256").metrics.mean()["psnr"] < 100


def test_photographs_are_compared_with_their_median_colour(tmp_path):
    source = open_pairs(write_side_by_side(tmp_path, 3, size=64), direction="BtoA")
    found = evaluate_model(lambda image: Prediction(image), source, range(3), legend=None)
    assert "road_f1" not in found.headline()
    grey = np.full((1, 64, 64, 3), 232, np.uint8)
    wrong = measure_maps(grey, source.load(0)[1][None]).mean()["psnr"]
    assert found.row(CONSTANT, "native").metrics.per_image()["psnr"][0] > wrong


def test_bounds_are_at_least_or_for_falling_figures_at_most(pairs):
    found = evaluate_model(noisy(pairs), pairs, range(6))
    head = found.headline()
    assert found.below({"psnr": head["psnr"], "rmse_gcgan": head["rmse_gcgan"]}) == []
    assert "at least" in found.below({"psnr": head["psnr"] + 0.1})[0]
    assert "at most" in found.below({"rmse_gcgan": head["rmse_gcgan"] - 0.1})[0]


def test_an_unknown_figure_is_refused_with_those_that_there_are():
    check_figures(["road_f1"], MAPS_LEGEND)
    for name, legend in (("roads", MAPS_LEGEND), ("road_f1", None)):
        with pytest.raises(OptionError, match=f"{name}: unknown.*psnr"):
            check_figures([name], legend)


def test_an_undefined_figure_misses_its_bound(tmp_path):
    blank = np.full((64, 128, 3), 232, np.uint8)
    Image.fromarray(blank).save(tmp_path / "x.png")
    found = evaluate_model(lambda image: Prediction(image), open_pairs(tmp_path), [0])
    assert found.below({"motorway_iou": 0.0})


def test_json_is_plain_and_csv_has_a_line_for_each_pair_and_row(pairs):
    found = evaluate_model(noisy(pairs), pairs, [1, 4])
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["pairs"] == 2
    psnr = plain["rows"][0]["metrics"]["psnr"]
    assert psnr["low"] <= psnr["mean"] <= psnr["high"]
    lines = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(lines) == 2 * len(found.rows)
    assert {line["pair"] for line in lines} == {"2", "5"}
    values = [float(x["psnr"]) for x in lines if (x["who"], x["scale"]) == (MODEL, "256")]
    assert np.mean(values) == pytest.approx(found.headline()["psnr"], rel=1e-5)


def test_no_pair_is_said(pairs):
    with pytest.raises(PairError, match="no pair"):
        evaluate_model(perfect(pairs), pairs, [])


def test_the_sheet_shows_best_median_and_worst_once_each(tmp_path, pairs):
    predict = noisy(pairs)
    found = evaluate_model(predict, pairs, range(6))
    write_sheet(tmp_path / "sheet.png", found, predict, pairs, by="psnr", each=1)
    sheet = np.array(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (3 * (256 + 18), 4 * 256, 3)
    assert_array_equal(sheet[18:274, :256], at_protocol_size(pairs.load(0)[0]))  # least noise
    last = sheet[2 * 274 + 18 :, 512:768]
    assert_array_equal(last, at_protocol_size(pairs.load(5)[1]))  # most noise


def save(folder, *, head="rgb", architecture="identity", arguments=None, palette=()):
    channels = len(palette) or 3
    generator = build_generator(architecture, arguments or {}, channels, head)
    card = ModelCard(
        name=folder.name, architecture=architecture, arguments=arguments or {}, head=head,
        palette=palette,
    )  # fmt: skip
    return save_model(folder, card, generator, "readme")


def test_the_identity_model_gives_an_image_of_any_size_back(tmp_path):
    predict = whole_image_predictor(save(tmp_path / "identity"))
    image = make_pair(1, 100)[0][:77]
    assert_array_equal(predict(image).picture, image)


def test_a_palette_model_gives_its_likeliest_colour_and_the_expected_one(tmp_path):
    classes = (
        PaletteClass(name="water", colour=(0, 0, 200)),
        PaletteClass(name="land", colour=(200, 100, 0)),
        PaletteClass(name="road", colour=(255, 255, 255)),
    )
    model = save(tmp_path / "bands", head="palette", palette=classes)
    made = whole_image_predictor(model)(make_pair(2, 64)[0])
    image = torch.from_numpy(make_pair(2, 64)[0]).float() / 127.5 - 1
    shares = image.softmax(-1).numpy()  # the identity takes bands for logits
    colours = np.array([c.colour for c in classes])
    assert_array_equal(made.picture, colours[shares.argmax(-1)])
    assert np.abs(made.expected - shares @ colours).max() <= 0.5


def test_feature_distances_are_zero_for_equal_sets_and_known_for_shifted_ones():
    features = np.random.default_rng(0).normal(size=(400, 5))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features + 2) == pytest.approx(20)
    # Mean m and covariance C against 3m and 9C: 4 |m|^2 + tr(C + 9C - 2 * 3C).
    mean, spread = features.mean(0), features.var(0, ddof=1).sum()
    wanted = 4 * (mean**2).sum() + 4 * spread
    assert frechet_distance(features, 3 * features) == pytest.approx(wanted)
    halves = features[:200], features[200:]
    assert abs(kernel_distance(*halves)) < 0.2 < kernel_distance(features, features + 2)


def test_maps_of_the_test_data_have_every_class():
    found = measure_maps(make_map(1)[None], make_map(1)[None]).mean()
    assert all(found[f"{name}_iou"] == 1 for name in ("water", "park", "motorway"))
