import numpy as np
import pytest
from PIL import Image

from tests.training.images import make_pair, write_side_by_side
from tilemapper.errors import PairError
from tilemapper.training.alignment import edge_alignment
from tilemapper.training.checks import check_pairs
from tilemapper.training.pairs import open_pairs, pack_pairs


def write(folder, number, first, second):
    Image.fromarray(np.concatenate([first, second], axis=1)).save(folder / f"{number}.png")


def kinds(faults):
    return {(fault.kind, fault.names[0]) for fault in faults}


def test_sound_pairs_have_no_fault(tmp_path):
    assert check_pairs(write_side_by_side(tmp_path, 20, size=160)) == (20, [])


def test_every_planted_fault_is_found_in_one_run(tmp_path):
    write_side_by_side(tmp_path, 9, size=160)
    satellite, target = make_pair(50, 160)
    write(tmp_path, "mirrored", satellite[:, ::-1], target)
    satellite, target = make_pair(51, 160)
    write(tmp_path, "flipped", satellite, target[::-1])
    satellite, target = make_pair(52, 160)
    write(tmp_path, "turned", np.rot90(satellite), target)
    satellite, target = make_pair(53, 200)
    write(tmp_path, "misaligned", satellite[:160, :160], target[15:175, 22:182])
    satellite, target = make_pair(54, 160)
    write(tmp_path, "black", np.zeros_like(satellite), target)
    write(tmp_path, "duplicate", *make_pair(3, 160))
    satellite, target = make_pair(5, 160)
    Image.fromarray(np.concatenate([satellite, target], 1)).save(tmp_path / "near.jpg", quality=60)
    write(tmp_path, "small", *make_pair(55, 100))
    write(tmp_path, "odd", satellite, target[:, :-1])
    Image.new("RGB", (1, 1)).save(tmp_path / "pixel.png")
    whole = (tmp_path / "9.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    count, faults = check_pairs(tmp_path)
    assert count == 21
    assert kinds(faults) == {
        ("mirrored", "mirrored"), ("mirrored", "flipped"), ("mirrored", "turned"),
        ("misaligned", "misaligned"), ("constant", "black"), ("duplicate", "duplicate"),
        ("near-duplicate", "near"), ("mis-sized", "small"), ("mis-sized", "odd"),
        ("mis-sized", "pixel"), ("damaged", "truncated"), ("damaged", "empty"),
    }  # fmt: skip
    assert next(f for f in faults if f.kind == "duplicate").names == ("duplicate", "3")


def test_unpaired_and_unequal_images_of_folders_are_found(tmp_path):
    for side in "AB":
        (tmp_path / side).mkdir()
        for number in range(1, 5):
            image = make_pair(number, 96)["AB".index(side)]
            Image.fromarray(image).save(tmp_path / side / f"{number}.png")
    (tmp_path / "A" / "1.png").unlink()
    (tmp_path / "B" / "2.png").unlink()
    Image.fromarray(make_pair(3, 64)[1]).save(tmp_path / "B" / "3.png")
    _, faults = check_pairs(tmp_path)
    assert kinds(faults) == {("unpaired", "1"), ("unpaired", "2"), ("mis-sized", "3")}
    assert {f.names[0]: f.what for f in faults}["1"] == "has no image in A"


def test_npz_files_are_checked_too(tmp_path):
    write_side_by_side(tmp_path / "in", 3, size=96)
    write(tmp_path / "in", 4, *make_pair(2, 96))
    pack_pairs(open_pairs(tmp_path / "in"), tmp_path / "p.npz")
    assert kinds(check_pairs(tmp_path / "p.npz")[1]) == {("duplicate", "4")}


def test_nothing_to_check_is_said(tmp_path):
    with pytest.raises(PairError, match="no image"):
        check_pairs(tmp_path)


@pytest.mark.parametrize(("down", "right"), [(20, 0), (0, -14), (-12, 26)])
def test_the_shift_of_the_map_is_told_in_pixels(down, right):
    satellite, target = make_pair(8, 240)
    found = edge_alignment(
        satellite[30:210, 30:210],
        target[30 - down : 210 - down, 30 - right : 210 - right],
    )
    assert found.shifted > 1.7 * found.here
    # Edges are compared at 128 px: one step is 1.4 px here.
    assert found.shift == pytest.approx((down, right), abs=2)
