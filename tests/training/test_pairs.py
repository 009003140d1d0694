import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.testing import assert_array_equal
from PIL import Image

from tests.corpus.tiff import Layout, tiff
from tests.training.images import load_all, make_pair, write_side_by_side
from tilemapper.errors import OptionError, PairError
from tilemapper.training.pairs import open_pairs, pack_pairs, split_pairs
from tilemapper.training.pixels import load_pixels
from tilemapper.training.sources import natural_key
from tilemapper.training.split import find_overlaps


def write_folders(root, count, first="A", second="B", suffix=".png"):
    for side, name in enumerate((first, second)):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            image = Image.fromarray(make_pair(number, 32)[side])
            image.save(root / name / f"{number}{suffix}")
    return root


def assert_says(error, *words):
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("width", [32, 80, 1202])
def test_a_side_by_side_image_is_split_in_half_whatever_its_width(tmp_path, width):
    image = np.random.default_rng(0).integers(0, 256, (40, width, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    source, target = open_pairs(tmp_path).load(0)
    assert_array_equal(source, image[:, : width // 2])
    assert_array_equal(target, image[:, width // 2 :])


def test_names_are_in_natural_order(tmp_path):
    names = open_pairs(write_side_by_side(tmp_path, 11, size=16)).names
    assert names == [str(n) for n in range(1, 12)]
    assert sorted(["10", "5²", "5", "٣"], key=natural_key) == ["٣", "5", "5²", "10"]


def test_the_direction_turns_every_layout_round(tmp_path):
    side_by_side = write_side_by_side(tmp_path / "s", 2, size=32)
    folders = write_folders(tmp_path / "f", 2)
    pack_pairs(open_pairs(side_by_side), tmp_path / "p.npz")
    satellite, target = make_pair(2, 32)
    for path in (side_by_side, folders, tmp_path / "p.npz"):
        for direction, wanted in (("AtoB", (satellite, target)), ("BtoA", (target, satellite))):
            found = open_pairs(path, direction=direction).load(1)
            assert_array_equal(found, wanted)


def test_a_packed_file_is_memory_mapped_and_keeps_names_and_pixels(tmp_path):
    source = open_pairs(write_side_by_side(tmp_path / "train", 3, size=32, first=7))
    pack_pairs(source, tmp_path / "p.npz")
    packed = open_pairs(tmp_path / "p.npz")
    assert packed.names == ["7", "8", "9"]
    assert isinstance(packed.first, np.memmap)
    assert_array_equal(load_all(packed), load_all(source))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keys", [("A", "B"), ("arr_0", "arr_1")])
def test_npz_files_of_other_projects_are_read(tmp_path, save, keys):
    arrays = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 24, 3), np.uint8)
    save(tmp_path / "maps.npz", **dict(zip(keys, arrays, strict=True)))
    assert_array_equal(load_all(open_pairs(tmp_path / "maps.npz")), arrays)


def test_a_val_folder_is_what_is_held_out(tmp_path):
    write_side_by_side(tmp_path / "train", 3, size=32)
    write_side_by_side(tmp_path / "val", 2, size=32)
    source = open_pairs(tmp_path)
    split = split_pairs(source, share=0.5)
    assert [source.names[i] for i in split.held_out] == ["val/1", "val/2"]
    assert len(split.train) == 3


@pytest.mark.parametrize("first", ["trainA", "train/A"])
def test_sides_inside_parts_are_matched(tmp_path, first):
    write_folders(tmp_path, 3, first, first.replace("A", "B"))
    val = first.replace("train", "val")
    write_folders(tmp_path, 2, val, val.replace("A", "B"))
    source = open_pairs(tmp_path)
    assert source.names == ["train/1", "train/2", "train/3", "val/1", "val/2"]
    assert_array_equal(source.load(4), make_pair(2, 32))


def test_unpaired_folders_go_through_the_shorter_side_again(tmp_path):
    write_folders(tmp_path, 2, "trainA", "trainB")
    for number in (7, 8, 9):
        Image.fromarray(make_pair(number, 32)[1]).save(tmp_path / "trainB" / f"x{number}.png")
    source = open_pairs(tmp_path, unpaired=True)
    assert len(source) == 5
    assert_array_equal(source.load(3)[0], make_pair(2, 32)[0])
    assert_array_equal(source.load(3)[1], make_pair(8, 32)[1])


def test_pairs_with_common_ground_never_straddle_the_split(tmp_path):
    source = open_pairs(write_side_by_side(tmp_path / "in", 30, size=16))
    rng = np.random.default_rng(3)
    edges = [{"a": int(a), "b": int(b)} for a, b in rng.integers(1, 31, (18, 2))]
    (tmp_path / "overlaps.json").write_text(json.dumps(edges))
    for seed in range(20):
        split = split_pairs(source, share=0.3, overlaps=tmp_path / "overlaps.json", seed=seed)
        assert sorted(split.train + split.held_out) == list(range(30))
        held_out = {source.names[i] for i in split.held_out}
        assert 1 <= len(held_out) <= 9
        for edge in edges:
            assert (str(edge["a"]) in held_out) == (str(edge["b"]) in held_out)


def test_the_split_depends_on_the_seed_and_on_nothing_else(tmp_path):
    source = open_pairs(write_side_by_side(tmp_path, 30, size=16))
    assert split_pairs(source, seed=1) == split_pairs(source, seed=1)
    assert len({tuple(split_pairs(source, seed=seed).held_out) for seed in range(5)}) > 1


def test_a_folder_and_its_train_folder_hold_out_the_same_pairs(tmp_path):
    write_side_by_side(tmp_path / "train", 30, size=16)
    above, below = (split_pairs(open_pairs(p)) for p in (tmp_path, tmp_path / "train"))
    assert above == below


def test_pairs_of_one_piece_of_ground_cannot_be_split(tmp_path):
    source = open_pairs(write_side_by_side(tmp_path, 2, size=16))
    (tmp_path / "overlaps.json").write_text("[[1, 2]]")
    with pytest.raises(PairError) as error:
        split_pairs(source, overlaps=tmp_path / "overlaps.json")
    assert_says(error, "one piece of ground")


@pytest.mark.parametrize("gap", [20, 39], ids=["two halves", "an island"])
def test_about_the_share_is_held_out_where_pieces_of_ground_are_of_other_sizes(tmp_path, gap):
    source = open_pairs(write_side_by_side(tmp_path, 40, size=16))
    edges = [[i, i + 1] for i in range(1, 40) if i != gap]
    (tmp_path / "overlaps.json").write_text(json.dumps(edges))
    split = split_pairs(source, overlaps=tmp_path / "overlaps.json")
    assert len(split.held_out) == 4
    assert len(split.train) >= 33
    held_out = {source.names[i] for i in split.held_out}
    learned = {source.names[i] for i in split.train}
    for edge in edges:
        assert not ({*map(str, edge)} & held_out and {*map(str, edge)} & learned)


def test_a_name_without_its_folder_means_the_pairs_of_every_folder(tmp_path):
    """Of two folders that number their pairs alike the overlaps of one were not known."""
    for folder in ("north", "south"):
        write_side_by_side(tmp_path / folder, 4, size=16)
    (tmp_path / "overlaps.json").write_text(json.dumps([["1", "2"], ["3", "4"]]))
    source = open_pairs(tmp_path)
    for seed in range(4):
        split = split_pairs(source, share=0.25, overlaps=find_overlaps(tmp_path, None), seed=seed)
        names = [source.names[i] for i in split.held_out]
        assert len({name.partition("/")[0] for name in names}) == 1
        assert {name.partition("/")[2] for name in names} in ({"1", "2"}, {"3", "4"})


def test_a_list_of_overlaps_beside_the_data_is_found_from_inside_of_it_too(tmp_path, monkeypatch):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "overlaps.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    assert find_overlaps(Path("pairs"), None) is not None
    monkeypatch.chdir(tmp_path / "pairs")
    assert find_overlaps(Path(), None) is not None


@pytest.mark.parametrize(
    ("text", "word"),
    [("[[77, 78]]", "none of the pairs"), ("{", "JSON list"), ("[1]", "JSON list")],
)
def test_a_wrong_overlap_file_is_refused(tmp_path, text, word):
    source = open_pairs(write_side_by_side(tmp_path, 3, size=16))
    (tmp_path / "overlaps.json").write_text(text)
    with pytest.raises(PairError) as error:
        split_pairs(source, overlaps=tmp_path / "overlaps.json")
    assert_says(error, "overlaps.json", word)


def test_a_share_of_one_is_refused(tmp_path):
    with pytest.raises(OptionError):
        split_pairs(open_pairs(write_side_by_side(tmp_path, 2, size=16)), share=1.0)


def test_nothing_there_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, word in (("empty", "no image found"), ("missing", "no such folder")):
        with pytest.raises(PairError) as error:
            open_pairs(tmp_path / path)
        assert_says(error, path, word)


def test_an_unknown_direction_is_refused(tmp_path):
    with pytest.raises(OptionError):
        open_pairs(tmp_path, direction="both")


@pytest.mark.parametrize("below", ["", "east"])
def test_a_folder_of_sided_folders_is_not_taken_for_side_by_side_images(tmp_path, below):
    """Half of a satellite image was learned as the map of its other half."""
    for side in "AB":
        write_side_by_side(tmp_path / "pairs" / "town" / side / below, 2, size=32)
    with pytest.raises(PairError, match=r"pairs: town has folders A and B.*name that folder"):
        open_pairs(tmp_path / "pairs")
    assert len(open_pairs(tmp_path / "pairs" / "town")) == 2


def test_a_missing_side_is_named(tmp_path):
    write_folders(tmp_path, 3)
    (tmp_path / "B" / "2.png").unlink()
    with pytest.raises(PairError) as error:
        open_pairs(tmp_path)
    assert_says(error, "2 has no image in B", "1 unpaired")
    for path in (tmp_path / "B").iterdir():
        path.unlink()
    with pytest.raises(PairError) as error:
        open_pairs(tmp_path)
    assert_says(error, "no image found in B")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("keep", [0, 10, 400])
def test_a_truncated_image_is_named(tmp_path, suffix, keep):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(np.concatenate(make_pair(1, 64), axis=1)).save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PairError) as error:
        open_pairs(tmp_path).load(0)
    assert_says(error, str(path))


def test_one_pixel_odd_and_sixteen_bit_images_are_refused(tmp_path):
    for size, word in (((1, 1), "even width"), ((2, 1), "at least 16x16"), ((33, 20), "even")):
        Image.new("RGB", size).save(tmp_path / "x.png")
        with pytest.raises(PairError) as error:
            open_pairs(tmp_path).load(0)
        assert_says(error, "x", word)
    Image.fromarray(np.zeros((20, 40), np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(PairError) as error:
        open_pairs(tmp_path).load(0)
    assert_says(error, "x.png", "8 bits")


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_colours_of_sixteen_bits_are_refused_and_not_cut_to_their_upper_eight(tmp_path, bands):
    path = tmp_path / "x.png"
    shape = {"height": 20, "width": 40, "count": bands, "dtype": "uint16"}
    place = Affine.translation(5, 5)  # rasterio warns of rasters that have none
    with rasterio.open(path, "w", driver="PNG", transform=place, **shape) as out:
        out.write(np.full((bands, 20, 40), 4000, np.uint16))  # the upper 8 bits are 15
    with pytest.raises(PairError) as error:
        open_pairs(tmp_path).load(0)
    assert_says(error, "x.png", ";16B", "8 bits")


def test_sizes_that_differ_within_a_pair_are_said(tmp_path):
    write_folders(tmp_path, 2)
    Image.new("RGB", (20, 32)).save(tmp_path / "B" / "1.png")
    with pytest.raises(PairError) as error:
        open_pairs(tmp_path).load(0)
    assert_says(error, "1", "20x32")


def test_two_files_of_one_name_are_refused(tmp_path):
    write_side_by_side(tmp_path, 1, size=16)
    Image.new("RGB", (32, 16)).save(tmp_path / "1.jpg")
    with pytest.raises(PairError) as error:
        open_pairs(tmp_path)
    assert_says(error, "same name")


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"x": np.zeros((2, 16, 16, 3), np.uint8)}, "A and B"),
        ({"A": np.zeros((2, 16, 16, 3)), "B": np.zeros((2, 16, 16, 3))}, "float64"),
        ({"A": np.zeros((2, 16, 16), np.uint8), "B": np.zeros((2, 16, 16), np.uint8)}, "shape"),
        (
            {"A": np.zeros((2, 16, 16, 3), np.uint8), "B": np.zeros((1, 16, 16, 3), np.uint8)},
            "2 im",
        ),
        (
            {"A": np.zeros((0, 16, 16, 3), np.uint8), "B": np.zeros((0, 16, 16, 3), np.uint8)},
            "0 im",
        ),
    ],
)
def test_wrong_npz_arrays_are_refused(tmp_path, arrays, word):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(PairError) as error:
        open_pairs(tmp_path / "x.npz")
    assert_says(error, "x.npz", word)


def test_damaged_npz_files_and_pickles_in_them_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, A=np.array([{}], dtype=object), B=np.array([{}], dtype=object))
    with pytest.raises(PairError) as error:
        open_pairs(path)
    assert_says(error, "x.npz")
    for damaged in (path.read_bytes()[:-30], b"", pickle.dumps({})):
        path.write_bytes(damaged)
        with pytest.raises(PairError) as error:
            open_pairs(path)
        assert_says(error, "x.npz")


def test_a_pipe_named_as_an_image_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(PairError, match="no regular file"):
        open_pairs(tmp_path).load(0)


def test_a_tiff_far_larger_than_an_image_to_learn_from_is_not_loaded(tmp_path):
    tile = 4096
    tiles = (0,) * 100
    fields = {256: (4, 40_000), 257: (4, 40_000), 322: (4, tile), 323: (4, tile)}
    small = Layout(tile=(16, 16), deflate=True)
    pixels = np.zeros((3, 16, 16), np.uint8)
    (tmp_path / "a.tif").write_bytes(
        tiff(pixels, small, fields={**fields, 324: (4, tiles), 325: (4, tiles)})
    )
    with pytest.raises(PairError, match="at most"):
        open_pairs(tmp_path).load(0)


def test_a_name_that_is_no_utf8_can_be_split(tmp_path):
    for name in (b"\xff.png", b"b.png"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:  # noqa: PTH123  bytes
            file.write(b"")
    assert len(split_pairs(open_pairs(tmp_path), share=0.5).held_out) == 1


NEGATIVE = "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 64, 64, 3)}"


@pytest.mark.parametrize("header", ["(" * 9000, NEGATIVE])
def test_an_array_whose_header_lies_is_refused(tmp_path, header):
    text = header.encode().ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + bytes(100)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for side in "AB":
            archive.writestr(f"{side}.npy", data)
    with pytest.raises(PairError, match=r"cannot be read as \.npz"):
        open_pairs(tmp_path / "a.npz")


@pytest.mark.parametrize("resize", [0, 24])
@pytest.mark.parametrize("make_target", [None, lambda colours: colours[:, 0]])
def test_a_packed_file_is_decoded_without_a_warning(tmp_path, resize, make_target):
    pack_pairs(open_pairs(write_side_by_side(tmp_path / "s", 2, size=32)), tmp_path / "p.npz")
    pairs = [(open_pairs(tmp_path / "p.npz"), index) for index in range(2)]
    torch.set_warn_always(True)  # else once a process, and perhaps in another test
    try:
        pixels = load_pixels(
            pairs,
            resize=resize,
            crop=16,
            storage="host",
            device=torch.device("cpu"),
            folder=tmp_path,
            make_target=make_target,
        )
    finally:
        torch.set_warn_always(False)
    if not resize:
        assert_array_equal(pixels.source[:1024].reshape(32, 32, 3), pairs[0][0].load(0)[0])
