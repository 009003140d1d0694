from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from torch.nn import functional

from tests.training.synthetic_pairs import COLOURS, make_pair, write_pairs
from tilemapper.errors import PairError
from tilemapper.networks.model import PaletteClass
from tilemapper.training import feed as feed_module
from tilemapper.training.augment import (
    Draw,
    cut_patches,
    draw_batch,
    map_to_network,
    patch_indices,
    random_state,
    to_network,
)
from tilemapper.training.classes import ClassColours
from tilemapper.training.config import AugmentConfig
from tilemapper.training.feed import Feed, Group
from tilemapper.training.imagery import blur, compress, numbers_drawn, vary_imagery
from tilemapper.training.pairs import open_pairs
from tilemapper.training.pixels import Pixels, load_pixels

CPU = torch.device("cpu")


def coordinate_pixels(sizes: list[tuple[int, int]]) -> Pixels:
    """Source and target that both hold (image, row, column) in every pixel."""
    grids = [
        np.stack(np.broadcast_arrays(i, *np.ogrid[:h, :w]), -1).reshape(-1, 3)
        for i, (h, w) in enumerate(sizes)
    ]
    flat = torch.from_numpy(np.concatenate(grids).astype(np.uint8))
    areas = [h * w for h, w in sizes]
    return Pixels(
        source=flat,
        target=flat.clone(),
        offset=torch.tensor([0, *itertools.accumulate(areas)][:-1]),
        height=torch.tensor([h for h, _ in sizes]),
        width=torch.tensor([w for _, w in sizes]),
        smallest=min(min(s) for s in sizes),
    )


def make_feed(pixels: Pixels, config: AugmentConfig, **changes) -> Feed:
    options = {"batch": 4, "seed": 3, "device": CPU, **changes}
    return Feed(pixels, [Group(0, len(pixels), 1.0)], config, **options)


def test_one_draw_moves_both_images_of_a_pair():
    pixels = coordinate_pixels([(60, 90), (70, 64), (100, 50)])
    feed = make_feed(pixels, AugmentConfig(crop=32))
    for step in range(6):
        batch = feed.make(step)
        assert torch.equal(batch.source, batch.target)
    feed.close()


def test_scaled_patches_of_both_images_show_the_same_ground():
    pixels = coordinate_pixels([(100, 100)])
    feed = make_feed(pixels, AugmentConfig(crop=32, scale=(1.5, 1.5)))
    batch = feed.make(0)
    rows_and_cols = ((batch.source - batch.target) * 127.5)[:, 1:]
    # Smooth against nearest sampling: at most a pixel and a half of 48 apart.
    assert rows_and_cols.abs().max() <= 1.5
    feed.close()


def test_half_of_the_batches_are_turned_and_show_the_same_ground_on_both_sides():
    pixels = coordinate_pixels([(100, 100)])
    feed = make_feed(pixels, AugmentConfig(crop=32, rotation=45, flips="none", right_angles=False))
    turned = 0
    for step in range(24):
        batch = feed.make(step)
        rows_and_cols = (batch.source + 1)[:, 1:] * 127.5
        # Smooth against nearest sampling.
        assert ((batch.source - batch.target) * 127.5).abs().max() <= 1
        turned += bool(rows_and_cols[:, 0].diff(dim=2).abs().sum() > 0)  # rows along a row
    assert 6 <= turned <= 18
    feed.close()


def test_without_rotation_the_draw_of_a_step_is_what_it_was():
    index = torch.arange(4)
    plain = draw_batch(AugmentConfig(crop=32), index, random_state(1), smallest=100)
    some = draw_batch(AugmentConfig(crop=32, rotation=1e-9), index, random_state(1), smallest=100)
    assert plain.angle == 0 and plain.side == plain.upright == 32
    for name in ("place", "flip", "transpose", "tone"):
        assert torch.equal(getattr(plain, name), getattr(some, name))


@pytest.mark.parametrize("maps", ["source", "target"])
def test_the_map_alone_keeps_its_colours_where_a_patch_is_resized(maps):
    plain = coordinate_pixels([(100, 100)])
    two = torch.randint(2, (10_000, 1), generator=torch.Generator().manual_seed(0)) * 255
    pixels = replace(plain, source=two.expand(-1, 3).byte(), target=two.expand(-1, 3).byte())
    batch = make_feed(pixels, AugmentConfig(crop=32, scale=(1.5, 1.5)), maps=maps).make(0)
    colours = {side: len(getattr(batch, side).unique()) for side in ("source", "target")}
    assert colours.pop(maps) == 2
    assert min(colours.values()) > 10


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
def test_patches_cut_on_the_host_are_those_that_indices_gather(scale):
    pixels = coordinate_pixels([(60, 90), (70, 64), (100, 50)])
    config = AugmentConfig(crop=32, scale=(scale, scale))
    index = torch.arange(24) % 3
    draw = draw_batch(config, index, random_state(4), smallest=pixels.smallest)
    where = pixels.offset[index], pixels.height[index], pixels.width[index]
    flat = patch_indices(draw, *where)
    assert torch.equal(cut_patches(pixels.source, draw, *where), pixels.source[flat])
    classes = pixels.source[:, 1].contiguous()  # one byte a pixel, as a palette's classes
    assert torch.equal(cut_patches(classes, draw, *where), classes[flat])


@pytest.mark.parametrize("side", [23, 32, 40])
def test_bytes_are_resized_as_numbers_are(side):
    patches = torch.randint(256, (2, side, side, 3), generator=random_state(5)).byte()
    x = patches.permute(0, 3, 1, 2).float()
    smooth = functional.interpolate(x, size=32, mode="bilinear", antialias=True)
    found = (to_network(patches, 32) + 1) * 127.5
    # Grey levels: rows and columns are rounded one after the other, by half a level at most each.
    assert float((found - smooth).abs().max()) < 1.001
    nearest = functional.interpolate(x, size=32, mode="nearest-exact")
    assert torch.equal(((map_to_network(patches, 32) + 1) * 127.5).round(), nearest)
    assert torch.equal(map_to_network(patches[..., 1], 32), nearest[:, 1].byte())


def test_the_classes_of_a_patch_are_those_of_its_pixels(tmp_path):
    """Marked once when read, and cut and moved and scaled like the map would be."""
    source = open_pairs(write_pairs(tmp_path / "pairs", 3))
    colours = ClassColours([PaletteClass(name=str(c), colour=c) for c in COLOURS[:3]], CPU)
    options = {"resize": 40, "crop": 32, "device": CPU, "folder": tmp_path, "storage": "host"}
    config = AugmentConfig(crop=32, scale=(0.8, 1.2))
    batches = []
    for make_target in (None, colours.mark):
        pairs = [(source, i) for i in range(3)]
        pixels = load_pixels(pairs, make_target=make_target, **options)
        feed = make_feed(pixels, config)
        batches.append([feed.make(step) for step in range(4)])
        feed.close()
    for plain, marked in zip(*batches, strict=True):
        levels = ((plain.target + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
        assert torch.equal(marked.target, colours.mark(levels))
        assert torch.equal(marked.source, plain.source)
        assert marked.target.unique().numel() > 3  # near ones and far ones


def test_unpaired_targets_are_moved_by_themselves():
    pixels = coordinate_pixels([(60, 60)] * 8)
    feed = make_feed(pixels, AugmentConfig(crop=32), unpaired=True)
    assert not torch.equal(feed.make(0).source, feed.make(0).target)
    feed.close()


@pytest.mark.parametrize(
    ("flips", "right_angles", "moves"),
    [("none", False, 1), ("horizontal", False, 2), ("both", False, 4), ("none", True, 4),
     ("both", True, 8)],
)  # fmt: skip
def test_the_moves_are_those_that_were_asked_for(flips, right_angles, moves):
    config = AugmentConfig(crop=16, flips=flips, right_angles=right_angles)
    draw = draw_batch(config, torch.zeros(64, dtype=torch.int64), random_state(1), smallest=16)
    zero, side = torch.zeros(64, dtype=torch.int64), torch.full((64,), 16)
    flat = patch_indices(draw, zero, side, side)
    image = np.arange(256).reshape(16, 16)
    seen = {p.numpy().tobytes() for p in flat}
    turned = [np.rot90(image, k) for k in range(4 if right_angles else 1)]
    if flips == "none":
        allowed = turned
    elif right_angles or flips == "both":
        allowed = [np.rot90(m, k) for m in (image, image[:, ::-1]) for k in range(4)]
    else:
        allowed = [image, image[:, ::-1]]
    assert len(seen) == moves
    assert seen <= {np.ascontiguousarray(m).tobytes() for m in allowed}


def test_patches_reach_every_edge_and_never_leave_their_image():
    place = torch.tensor([[0.0, 0.0], [0.999999, 0.999999]])
    no = torch.zeros(2, 2, dtype=torch.bool)
    index = torch.tensor([1, 1])
    draw = Draw(index, place, no, no[:, 0], torch.zeros(2, 6), side=20)
    pixels = coordinate_pixels([(40, 30), (25, 35)])
    flat = patch_indices(draw, pixels.offset[index], pixels.height[index], pixels.width[index])
    cut = pixels.source[flat]
    assert cut[0, 0, 0].tolist() == [1, 0, 0]
    assert cut[1, -1, -1].tolist() == [1, 24, 34]


def test_a_batch_depends_on_seed_and_step_alone():
    pixels = coordinate_pixels([(40, 40)] * 5)
    config = AugmentConfig(crop=16, brightness=0.1)
    forward, single = make_feed(pixels, config), make_feed(pixels, config)
    batches = [forward(step) for step in range(5)]
    assert torch.equal(single(3).source, batches[3].source)
    assert torch.equal(single(3).tone, batches[3].tone)
    assert not torch.equal(batches[2].source, batches[3].source)
    forward.close(), single.close()


def test_an_epoch_shows_every_pair_once():
    pixels = coordinate_pixels([(20, 20)] * 7)
    feed = make_feed(pixels, AugmentConfig(crop=16), batch=1)
    seen = [int(feed.choose(step, "pair")[0]) for step in range(14)]
    assert sorted(seen[:7]) == sorted(seen[7:]) == list(range(7))
    assert seen[:7] != seen[7:]
    feed.close()


def test_extra_pairs_are_drawn_by_their_share():
    pixels = coordinate_pixels([(20, 20)] * 10)
    groups = [Group(0, 8, 0.75), Group(8, 2, 0.25)]
    feed = Feed(pixels, groups, AugmentConfig(crop=16), batch=2000, seed=0, device=CPU)
    share = float((feed.choose(0, "pair") >= 8).float().mean())
    assert share == pytest.approx(0.25, abs=0.04)  # four deviations of 2000 draws
    feed.close()


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.8, 1.2)])
@pytest.mark.parametrize("where", ["host", "device"])
def test_neighbours_share_ground_however_they_are_turned(scale, where, monkeypatch):
    """Each pixel says where in the image it lies, so shared ground says the same in both."""
    pixels = coordinate_pixels([(90, 120), (100, 80), (110, 84)])
    if where == "device":  # gathered by indices, as on an accelerator
        monkeypatch.setattr(feed_module, "cut_patches", cut_by_indices)
    feed = make_feed(pixels, AugmentConfig(crop=32, scale=scale), batch=8, neighbours=True)
    seen, images = set(), set()
    for step in range(40):
        batch = feed.make(step)
        rows, cols = batch.apart
        assert (rows == 0) != (cols == 0)
        assert not torch.equal(batch.tone[0::2], batch.tone[1::2])
        near = batch.target[0::2, :, rows:, cols:]
        far = batch.target[1::2, :, : 32 - rows, : 32 - cols]
        assert torch.equal(near, far)
        seen.add((rows, cols))
        images |= set(feed.choose(step, "pair").tolist())
    assert len(seen) == 12
    assert images == {0, 1, 2}
    feed.close()


def cut_by_indices(pixels, draw, offset, height, width):
    return pixels[patch_indices(draw, offset, height, width)]


def test_neighbours_find_room_in_an_image_of_the_size_of_the_crop():
    pixels = coordinate_pixels([(32, 32), (40, 32)])
    feed = make_feed(pixels, AugmentConfig(crop=32), neighbours=True)
    for step in range(20):
        batch = feed.make(step)
        rows, cols = batch.apart
        near, far = batch.target[0::2, :, rows:, cols:], batch.target[1::2]
        assert torch.equal(near, far[:, :, : 32 - rows, : 32 - cols])
    feed.close()


def test_two_processes_share_one_draw_of_neighbours():
    pixels = coordinate_pixels([(60, 60)] * 6)
    whole = make_feed(pixels, AugmentConfig(crop=16), batch=8, neighbours=True)
    parts = [
        make_feed(pixels, AugmentConfig(crop=16), batch=4, neighbours=True, rank=rank, world=2)
        for rank in (0, 1)
    ]
    batches = [part.make(5) for part in parts]
    assert torch.equal(torch.cat([b.source for b in batches]), whole.make(5).source)
    assert batches[0].apart == batches[1].apart == whole.make(5).apart
    for feed in (whole, *parts):
        feed.close()


def test_two_processes_share_one_draw():
    pixels = coordinate_pixels([(40, 40)] * 6)
    config = AugmentConfig(crop=16)
    whole = make_feed(pixels, config, batch=4)
    parts = [make_feed(pixels, config, batch=2, rank=rank, world=2) for rank in (0, 1)]
    joined = torch.cat([part.make(5).source for part in parts])
    assert torch.equal(joined, whole.make(5).source)
    for feed in (whole, *parts):
        feed.close()


def test_tone_changes_within_its_bounds_and_only_where_asked():
    x = torch.zeros(50, 3, 4, 4)
    tone = torch.rand(50, 8, generator=random_state(2)) * 2 - 1
    assert torch.equal(vary_imagery(x, tone, AugmentConfig()), x)
    changed = vary_imagery(x, tone, AugmentConfig(brightness=0.1))
    assert 0.15 < float(changed.abs().max()) <= 0.2  # a tenth of the full range, which is 2 wide
    bright = vary_imagery(x + 0.99, tone, AugmentConfig(brightness=0.5, noise=0.1))
    assert float(bright.max()) <= 1


def test_gamma_lifts_or_lowers_what_lies_between_black_and_white():
    config = AugmentConfig(gamma=1.0)
    grey = torch.full((3, 3, 4, 4), 0.25) * 2 - 1
    grey[:, :, 0, 0], grey[:, :, 0, 1] = -1, 1
    drawn = torch.zeros(3, numbers_drawn(config))
    drawn[:, 8] = torch.tensor([-1.0, 0.0, 1.0])  # of brighter, as it is, darker
    share = (vary_imagery(grey, drawn, config) + 1) / 2
    assert torch.allclose(share[:, 1, 2, 2], torch.tensor([0.5, 0.25, 0.0625]), atol=1e-6)
    assert torch.allclose(share[:, :, 0, :2], torch.tensor([0.0, 1.0]).expand(3, 3, 2), atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_saturation_moves_colours_to_the_grey_of_their_brightness_or_away(gamma):
    config = AugmentConfig(gamma=gamma, saturation=2.0)
    colour = torch.tensor([0.1, -0.05, 0.02])
    x = colour[None, :, None, None].expand(3, 3, 4, 4).clone()
    drawn = torch.zeros(3, numbers_drawn(config))
    drawn[:, -1] = torch.tensor([-1.0, 0.0, 1.0])
    changed = vary_imagery(x, drawn, config)[:, :, 1, 1]
    grey = 0.299 * 0.1 - 0.587 * 0.05 + 0.114 * 0.02
    for image, factor in zip(changed, (0.25, 1.0, 4.0), strict=True):
        assert torch.allclose(image, grey + factor * (colour - grey), atol=1e-5)
    strong = vary_imagery(x * 10, drawn, config)
    assert float(strong.abs().max()) <= 1


def test_each_image_draws_its_own_gamma_and_a_job_without_draws_what_it_did():
    def drawn(gamma: float) -> torch.Tensor:
        config = AugmentConfig(crop=16, gamma=gamma)
        return draw_batch(config, torch.arange(4), random_state(7), smallest=32).tone

    assert drawn(0.7).shape == (4, 9)
    assert len(set(drawn(0.7)[:, 8].tolist())) == 4
    assert float(drawn(0.7)[:, 8].abs().max()) <= 1
    before = random_state(7)
    for shape in ((1,), (4, 2), (4, 2), (4,)):  # scale, place, flips, transposed
        torch.rand(*shape, generator=before)
    assert torch.equal(drawn(0.0), torch.rand(4, 8, generator=before) * 2 - 1)


def test_each_image_is_blurred_by_its_own_draw():
    x = torch.zeros(2, 3, 33, 33)
    x[:, :, 16, 16] = 1
    blurred = blur(x, torch.tensor([0.0, 2.0]))
    assert torch.allclose(blurred[0], x[0], atol=1e-6)
    spot = blurred[1, 0]
    assert float(spot.sum()) == pytest.approx(1, abs=1e-4)
    at = torch.arange(33) - 16.0
    assert float((spot.sum(1) * at.square()).sum()) == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("quality", [15, 40, 75])
def test_compression_is_that_of_jpeg(quality):
    """The table is smoothed along its diagonals, so it is like Pillow's, not the same."""
    image = make_pair(3, 52)[0]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    theirs = np.asarray(Image.open(buffer)).astype(float)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    ours = compress(x, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    damage = np.abs(theirs - image).mean()
    assert np.abs(ours - image).mean() == pytest.approx(damage, rel=0.25)
    assert np.abs(ours - theirs).mean() < 0.75 * damage


def test_the_best_compression_leaves_an_image_nearly_alone():
    x = torch.rand(2, 3, 20, 30) * 2 - 1
    assert float((compress(x, torch.full((2,), 100.0)) - x).abs().max()) < 0.02
    drawn = torch.zeros(2, 8)
    varied = vary_imagery(x, drawn, AugmentConfig(jpeg_quality=30, blur=1.0))
    assert torch.allclose(varied, x, atol=0.03)  # a draw of 0 is no blur and quality 100


@pytest.mark.parametrize("storage", ["host", "mmap"])
def test_pixels_are_the_images_wherever_they_are_kept(tmp_path, storage):
    source = open_pairs(write_pairs(tmp_path / "pairs", 3))
    pixels = load_pixels(
        [(source, i) for i in range(3)],
        resize=0, crop=32, storage=storage, device=CPU, folder=tmp_path,
    )  # fmt: skip
    for i in range(3):
        place = slice(int(pixels.offset[i]), int(pixels.offset[i]) + 48 * 48)
        for side, image in zip((pixels.source, pixels.target), source.load(i), strict=True):
            assert_array_equal(side[place].view(48, 48, 3).numpy(), image)
    assert [p.name for p in tmp_path.iterdir()] == ["pairs"]  # the mapped file has no name


def test_images_are_resized_to_the_shorter_side_and_too_small_ones_refused(tmp_path):
    source = open_pairs(write_pairs(tmp_path / "pairs", 1))
    options = {"storage": "host", "device": CPU, "folder": tmp_path}
    pixels = load_pixels([(source, 0)], resize=36, crop=32, **options)
    assert (int(pixels.height[0]), int(pixels.width[0])) == (36, 36)
    with pytest.raises(PairError, match="48x48 px found, at least 64 px are needed"):
        load_pixels([(source, 0)], resize=0, crop=64, **options)
