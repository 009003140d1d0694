import math

import pytest

from tilemapper.errors import ModelError
from tilemapper.networks.card import ModelCard, PaletteClass, Tone, card_text, read_card

LAND = PaletteClass(name="land", colour=(232, 228, 224))
WATER = PaletteClass(name="water", colour=(177, 209, 255))

FULL = ModelCard(
    name="maps-2",
    architecture="unet",
    arguments={"width": 8, "upsample": "resize", "dropout": 0.0},
    head="palette",
    direction="BtoA",
    gsd_m=0.9,
    licence='research "use"\nonly \\ here \x7f',
    origin="Straße 地図 😀",
    train_eval_gap=1e-07,
    tone=Tone(mean=(90.5, 88.0, 80.25), std=(40.0, 41.0, 42.0)),
    metrics={"psnr": 24.5, "acc@5": 0.45, "road f1": float("nan")},
    palette=(LAND, WATER),
    weights="generator.safetensors",
    weights_sha256="0" * 64,
)


def write(folder, text):
    (folder / "model.toml").write_text(text, encoding="utf-8")
    return folder


def test_a_card_reads_back_as_it_was_written(tmp_path):
    found = read_card(write(tmp_path, card_text(FULL)))
    assert math.isnan(found.metrics["road f1"])
    plain = {"metrics": {}}
    assert found.model_copy(update=plain) == FULL.model_copy(update=plain)
    assert found.metrics["acc@5"] == 0.45


def test_a_minimal_card_has_the_defaults_of_the_contract(tmp_path):
    card = read_card(write(tmp_path, 'name = "m"\narchitecture = "identity"\n'))
    assert (card.tile, card.bands, card.head, card.channels) == (256, 3, "rgb", 3)
    assert (card.gsd_m, card.norm, card.weights) == (None, "running", None)


GOOD = 'name = "m"\narchitecture = "unet"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not readable as TOML"),
        ('name = "m"\n', "architecture: Field required"),
        ('name = "../m"\narchitecture = "unet"\n', "name is '../m'"),
        (GOOD + 'licens = "x"\n', "unknown key licens,.*did you mean licence"),
        (GOOD + "format = 2\n", "format is 2"),
        (GOOD + "[arguments]\nwidht = 3\n", "unknown key widht.*did you mean width"),
        (GOOD + "[arguments]\nwidth = 100000\n", "width is 100000"),
        (GOOD + "tile = 300\n", "tile 300.*multiple of 256"),
        (
            'name = "m"\narchitecture = "residual"\ntile = 32\n'
            '[arguments]\nstride = 32\nnorm = "instance"\n',
            "tile 32, at least 64 is needed with norm instance",
        ),
        (GOOD + "bands = 4\n", "bands 4, the arguments say 3"),
        (GOOD + 'head = "palette"\n', "palette head with 0 palette classes"),
        (GOOD + '[[palette]]\nname = "a"\ncolour = [1, 2, 300]\n', "palette.0.colour.2 is 300"),
        (GOOD + '[[palette]]\nname = "a"\ncolour = [1, 2, 3]\n', "rgb head with 1 palette"),
        (GOOD + "gsd_m = -1\n", "gsd_m is -1"),
        (GOOD + "gsd_m = nan\n", "gsd_m is nan"),
        (GOOD + f'weights = "../../etc/passwd"\nweights_sha256 = "{"0" * 64}"\n', "weights is"),
        (GOOD + f'weights = "/a.safetensors"\nweights_sha256 = "{"0" * 64}"\n', "weights is"),
        (GOOD + f'weights = "..\\\\a.safetensors"\nweights_sha256 = "{"0" * 64}"\n', "weights is"),
        (GOOD + f'weights = "a.pth"\nweights_sha256 = "{"0" * 64}"\n', "a .safetensors file"),
        (GOOD.replace('name = "', 'name = "my '), r"name is 'my .*': 1 to 80 letters, digits"),
        (GOOD + 'weights = "a.safetensors"\nweights_sha256 = "0F"\n', "a sha256 of 64 hexadecimal"),
        (GOOD + 'weights = "a.safetensors"\n', "given together"),
        (GOOD + "a = " + "[" * 5000 + "]" * 5000, "not readable as TOML|unknown key"),
        ("#" * (1 << 20) + "\n", "larger than"),
    ],
)
def test_a_lying_card_is_one_line_that_names_the_file_and_the_fault(tmp_path, text, message):
    with pytest.raises(ModelError, match=message) as caught:
        read_card(write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "model.toml"))
    assert "\n" not in str(caught.value)


def test_a_card_that_is_no_utf8_is_refused(tmp_path):
    (tmp_path / "model.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ModelError, match="not readable as TOML"):
        read_card(tmp_path)


def test_a_card_can_be_a_key():
    again = ModelCard.model_validate(FULL.model_dump())
    assert {FULL: 1}[again.model_copy(update={"metrics": FULL.metrics})] == 1


def test_the_digest_changes_with_what_decides_a_pixel_and_with_nothing_else():
    same = FULL.model_copy(update={"licence": "other", "metrics": {}, "date": "2026"})
    assert same.digest == FULL.digest
    for change in (
        {"weights_sha256": "1" * 64},
        {"arguments": {"width": 8}},
        {"palette": (WATER, LAND)},
        {"norm": "instance"},
        {"gsd_m": 1.0},
    ):
        assert FULL.model_copy(update=change).digest != FULL.digest


def test_a_saved_card_that_was_changed_is_refused_unless_its_checksum_is_taken_out(tmp_path):
    card = ModelCard(name="m", architecture="identity", gsd_m=0.5)
    text = card_text(card).replace("gsd_m = 0.5", "gsd_m = 5.0")
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(ModelError, match="was changed since it was saved"):
        read_card(tmp_path)
    (tmp_path / "model.toml").write_text(text.partition("\n")[2])
    assert read_card(tmp_path).gsd_m == 5.0
    (tmp_path / "model.toml").write_text('origin = "here"\n' + card_text(card))
    assert read_card(tmp_path).origin == "here"  # decides no pixel


def test_a_number_without_end_is_one_line(tmp_path):
    (tmp_path / "model.toml").write_text(f"split_seed = {'9' * 5000}")
    with pytest.raises(ModelError, match="not readable as TOML"):
        read_card(tmp_path)
