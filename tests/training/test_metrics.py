import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from tests.training.images import LAND, MOTORWAY, PARK, ROAD, WATER, make_map
from tilemapper.networks.model import PaletteClass
from tilemapper.training.heldout import better
from tilemapper.training.jobfile import load_job
from tilemapper.training.legend import MAPS_LEGEND, Legend, legend_of
from tilemapper.training.metrics import MapMetrics, measure_maps
from tilemapper.training.similarity import resize_without_antialias


def plain(colour=LAND, size=64):
    image = np.empty((size, size, 3), np.uint8)
    image[:] = colour
    return image


def painted(colour, rows, columns=slice(None), size=64):
    image = plain(size=size)
    image[rows, columns] = colour
    return image


def one(predicted, truth, **options):
    return measure_maps(predicted[None], truth[None], **options).mean()


def noisy(image, seed=0, deviation=12):
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 91), (11, 300)])
def test_psnr_and_ssim_equal_those_of_torchmetrics(height, width):
    truth = np.array(Image.fromarray(make_map(1, 128)).resize((width, height)))
    predicted = noisy(truth)
    found = one(predicted, truth)
    x, y = (torch.from_numpy(i).permute(2, 0, 1)[None].double() for i in (predicted, truth))
    assert found["psnr"] == pytest.approx(float(peak_signal_noise_ratio(x, y, data_range=255)))
    wanted = structural_similarity_index_measure(x, y, data_range=255.0)
    # float32 here, float64 there
    assert found["ssim"] == pytest.approx(float(wanted), abs=2e-5)


def test_a_perfect_map_scores_the_best_of_every_figure():
    truth = np.stack([make_map(seed) for seed in range(3)])
    found = measure_maps(truth, truth).mean()
    best = {"psnr": 100, "ssim": 1, "acc5": 1, "acc10": 1, "rmse_gcgan": 0, "sharpness": 1}
    best |= {"road_f1": 1, "water_iou": 1, "park_iou": 1, "motorway_iou": 1, "mean_iou": 1}
    best |= {f"{name}_invented": 0 for name in ("road", "water", "park", "motorway")}
    assert found == pytest.approx(best, abs=1e-5)


def test_the_protocol_of_gcgan_is_followed_to_the_letter():
    truth, predicted = plain(size=256), plain(size=256)
    predicted[:64, :, 0] += 4  # a quarter below 5
    predicted[64:128, :, 1] += 5  # a quarter not below 5, below 10
    predicted[128:192, :, 2] += 10  # a quarter not below 10
    found = one(predicted, truth)
    assert (found["acc5"], found["acc10"]) == (0.5, 0.75)
    assert found["rmse_gcgan"] == pytest.approx(np.sqrt((16 + 25 + 100) / 4))


def test_the_protocol_resizes_bilinearly_without_antialias():
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    resized = resize_without_antialias(torch.from_numpy(image).permute(2, 0, 1)[None])
    # Halving by bilinear interpolation without antialias is the mean of 2 x 2.
    wanted = image.reshape(256, 2, 256, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(resized[0].numpy() - wanted).max() <= 0.5


@pytest.mark.parametrize(("shift", "hit"), [(0, True), (3, True), (4, False)])
def test_a_road_may_lie_three_pixels_off(shift, hit):
    truth = painted(ROAD, slice(30, 31))
    found = one(painted(ROAD, slice(30 + shift, 31 + shift)), truth)
    assert found["road_f1"] == (1.0 if hit else 0.0)
    assert found["road_invented"] == (0.0 if hit else 1.0)


def test_road_f1_is_the_harmonic_mean_of_precision_and_recall():
    truth = painted(ROAD, slice(10, 11))  # 64 px
    predicted = painted(ROAD, slice(10, 11), slice(0, 32))
    predicted[50, :16] = ROAD  # 16 px of 48 invented
    precision, recall = 32 / 48, 35 / 64  # 3 px beyond the end still count as found
    wanted = 2 * precision * recall / (precision + recall)
    assert one(predicted, truth)["road_f1"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("name", "colour"), [("water", WATER), ("park", PARK), ("motorway", MOTORWAY)]
)
def test_the_iou_of_an_area_is_intersection_over_union(name, colour):
    found = one(painted(colour, slice(0, 20)), painted(colour, slice(10, 30)))
    assert found[f"{name}_iou"] == pytest.approx(10 / 30)
    assert found[f"{name}_invented"] == pytest.approx(7 / 20)  # 3 rows lie within the buffer


def test_a_class_that_neither_image_has_is_undefined_and_left_out_of_means():
    both = measure_maps(np.stack([plain()] * 2), np.stack([plain(), painted(WATER, slice(0, 9))]))
    assert np.isnan(both.per_image()["water_iou"][0])
    assert both.per_image()["water_iou"][1] == 0
    assert both.mean()["water_iou"] == 0
    assert np.isnan(both.mean()["park_iou"])


def test_ious_are_pooled_over_images():
    truth = np.stack([painted(WATER, slice(0, 40)), painted(WATER, slice(0, 2))])
    predicted = np.stack([painted(WATER, slice(0, 40)), plain()])
    assert measure_maps(predicted, truth).mean()["water_iou"] == pytest.approx(40 / 42)


def slowly(predicted, truth, legend):
    """The figures of classes, pixel by pixel as they are defined."""

    def classes(image):
        apart = image[:, :, None].astype(int) - np.array(legend.colours)
        return np.array(legend.names)[(apart**2).sum(-1).argmin(-1)]

    def near(wanted, others):  # of the wanted pixels, those within 3 px of one of the others
        there = np.argwhere(others)
        return sum(
            bool(len(there)) and (((there - place) ** 2).sum(1) <= 9).any()
            for place in np.argwhere(wanted)
        )

    pairs = [(classes(p), classes(t)) for p, t in zip(predicted, truth, strict=True)]
    figures, ious = {}, []
    for name in legend.judged:
        both = [(p == name, t == name) for p, t in pairs]
        painted, true = (sum(side[k].sum() for side in both) for k in (0, 1))
        ious.append(sum((p & t).sum() for p, t in both) / sum((p | t).sum() for p, t in both))
        precision = sum(near(p, t) for p, t in both) / painted
        figures[f"{name}_invented"] = 1 - precision
        if name == "road":
            recall = sum(near(t, p) for p, t in both) / true
            figures["road_f1"] = 2 / (1 / precision + 1 / recall)
        else:
            figures[f"{name}_iou"] = ious[-1]
    return {**figures, "mean_iou": np.mean(ious)}


def test_the_figures_of_classes_are_those_of_a_slow_reading_of_their_definitions():
    truth = np.stack([make_map(seed, 40) for seed in range(3)])
    predicted = np.stack([noisy(np.roll(t, (2, 3), (0, 1)), 5) for t in truth])
    wanted = slowly(predicted, truth, MAPS_LEGEND)
    assert len(wanted) == 9
    found = measure_maps(predicted, truth)
    assert {name: found.mean()[name] for name in wanted} == pytest.approx(wanted)
    # An interval from samples drawn one by one, of the same numbers of each image.
    times = np.random.default_rng(0).multinomial(3, [1 / 3] * 3, size=4)
    drawn = [slowly(*(np.repeat(i, n, 0) for i in (predicted, truth)), MAPS_LEGEND) for n in times]
    low, high = found.intervals(draws=4)["road_f1"]
    assert (low, high) == pytest.approx(np.quantile([d["road_f1"] for d in drawn], [0.025, 0.975]))


def test_two_greens_are_one_park():
    found = one(painted((196, 220, 160), slice(0, 20)), painted((203, 223, 171), slice(0, 20)))
    assert found["park_iou"] == 1


def test_a_blurred_map_is_not_sharp_and_a_constant_has_no_road():
    truth = make_map(3)
    small = Image.fromarray(truth).resize((16, 16), Image.Resampling.BOX)
    blurred = np.array(small.resize((128, 128), Image.Resampling.BILINEAR))
    assert one(blurred, truth)["sharpness"] < 0.3
    constant = one(plain(size=128), truth)
    assert (constant["sharpness"], constant["road_f1"]) == (0, 0)


def test_the_nearest_class_is_the_nearest_colour():
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    distance = (image[..., None, :].astype(int) - np.array(MAPS_LEGEND.colours)) ** 2
    found = MAPS_LEGEND.nearest(torch.from_numpy(image)).numpy()
    nearest = distance.sum(-1)
    assert (np.take_along_axis(nearest, found[..., None], -1)[..., 0] == nearest.min(-1)).all()


def test_the_nearest_of_many_colours_is_exact_too():
    random = np.random.default_rng(0)
    legend = Legend(
        tuple(map(str, range(128))),
        tuple(tuple(colour) for colour in random.integers(0, 256, (128, 3)).tolist()),
    )
    image = random.integers(0, 256, (60, 60, 3), np.uint8)
    distance = ((image[..., None, :].astype(int) - np.array(legend.colours)) ** 2).sum(-1)
    found = legend.nearest(torch.from_numpy(image)).numpy()
    assert (np.take_along_axis(distance, found[..., None], -1)[..., 0] == distance.min(-1)).all()


def test_a_legend_needs_a_name_for_each_colour():
    with pytest.raises(ValueError, match="2 names, 1 colours"):
        Legend(("x", "y"), ((0, 0, 0),))


def palette(**colours):
    return [PaletteClass(name=name.replace("_", " "), colour=c) for name, c in colours.items()]


def test_maps_of_a_style_of_their_own_are_judged_by_its_classes():
    own = palette(rail_way=(10, 10, 10), road=(200, 0, 0), ground=LAND)
    truth, predicted = plain(), plain()
    truth[:20], truth[40] = (10, 10, 10), (200, 0, 0)
    predicted[10:30], predicted[42] = (10, 10, 10), (200, 0, 0)
    found = one(predicted, truth, legend=legend_of(own))
    rail = 10 / 30
    ground = 32 / 54  # rows that both leave free, and those that either does
    assert found["rail_way_iou"] == pytest.approx(rail)
    assert found["rail_way_invented"] == pytest.approx(7 / 20)
    assert found["ground_iou"] == pytest.approx(ground)
    assert found["road_f1"] == 1
    assert found["mean_iou"] == pytest.approx((rail + 0 + ground) / 3)  # a line off by two: 0
    assert "water_iou" not in found


def test_a_class_named_mean_does_not_hide_the_mean_of_all_classes():
    own = palette(Mean=(10, 10, 10), ground=LAND)
    truth, predicted = plain(), plain()
    truth[:20], predicted[10:30] = (10, 10, 10), (10, 10, 10)
    found = one(predicted, truth, legend=legend_of(own))
    assert found["mean_class_iou"] == pytest.approx(10 / 30)
    assert found["mean_iou"] == pytest.approx((10 / 30 + 34 / 54) / 2)


def test_classes_of_names_that_only_signs_or_case_tell_apart_are_not_counted_as_one():
    names = ["(Road)", "road", "mean", "mean class", "\N{HOUSE BUILDING}", "\N{EVERGREEN TREE}"]
    names += ["cafe\N{COMBINING ACUTE ACCENT}", "psnr", "road_2", "road"]
    own = [PaletteClass(name=name, colour=(20 * i, 0, 0)) for i, name in enumerate(names)]
    assert legend_of(own).names == (
        "road_3", "road", "mean_class", "mean_class_2", "class", "class_2",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "psnr", "road_2", "road",
    )  # fmt: skip
    image = np.stack([np.full((16, 16, 3), c.colour, np.uint8) for c in own]).reshape(-1, 16, 3)
    found = one(image, image, legend=legend_of(own))
    # Of each of the nine names two, of the line its F1 in place of the IoU, and the seven of all.
    assert len(found) == 2 * 9 + 7
    assert (found["psnr"], found["psnr_iou"], found["mean_iou"]) == (100, 1, 1)


def test_the_palette_of_the_maps_set_is_judged_by_its_legend():
    maps = load_job(preset="fast").palette
    assert legend_of(maps) is legend_of(()) is MAPS_LEGEND
    assert legend_of([c for c in maps if c.name != "water"]) is not MAPS_LEGEND


@pytest.mark.parametrize(("off", "same"), [(4, True), (5, False)])
def test_colours_counted_on_other_maps_of_the_style_are_judged_by_its_legend(off, same):
    maps = load_job(preset="fast").palette
    park = next(colour for name, colour in _named(MAPS_LEGEND) if name == "park")
    others = [c for c in maps if max(np.abs(np.subtract(c.colour, park))) > 8]
    moved = [*others, PaletteClass(name="park", colour=(park[0] - off, park[1], park[2] + off))]
    own = [*moved, *(c for c in maps if c.name == "lawn" and c not in moved)]
    assert (legend_of(own) is MAPS_LEGEND) == same


def _named(legend):
    return zip(legend.names, legend.colours, strict=True)


def test_photographs_are_measured_without_classes():
    image = noisy(make_map(1))
    assert set(one(image, image, legend=None)) == {
        "psnr", "ssim", "acc5", "acc10", "rmse_gcgan", "sharpness",
    }  # fmt: skip


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_more_images():
    truth = np.stack([make_map(seed, 64) for seed in range(12)])
    predicted = np.stack([noisy(t, seed, 4 + 3 * seed) for seed, t in enumerate(truth)])
    few = measure_maps(predicted, truth)
    many = MapMetrics.join([few] * 8)
    for name, mean in few.mean().items():
        low, high = few.intervals()[name]
        assert low - 1e-9 <= mean <= high + 1e-9
    width = [np.diff(m.intervals()["psnr"])[0] for m in (few, many)]
    assert width[1] < width[0] / 2
    assert many.mean() == pytest.approx(few.mean())
    assert few.intervals(seed=1) == few.intervals(seed=1)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        measure_maps(plain()[None], plain(size=32)[None])
    with pytest.raises(ValueError, match="uint8"):
        measure_maps(plain()[None].astype(float), plain()[None])


def test_of_what_is_invented_less_is_better():
    assert better("motorway_invented", 0.1, 0.2)
    assert not better("motorway_iou", 0.1, 0.2)
    assert not better("loss", float("nan"), None)
