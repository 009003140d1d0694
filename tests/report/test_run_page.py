"""The page of a training run holds its curves, samples, figures, network and job."""

from __future__ import annotations

import itertools
import json
import re
import struct
import zlib

import numpy as np
import pytest

from tilemapper.api.run_page import layers_of, write_run_page, write_sweep_page
from tilemapper.networks.build import build_generator
from tilemapper.raster.png import write_png
from tilemapper.report.curves import curves_svg


@pytest.fixture
def run(tmp_path, models):
    """A run folder as training leaves it, with 30 samples."""
    folder = tmp_path / "run<1>"
    folder.mkdir()
    events = [{"kind": "train", "step": s, "l1": 1 / s, "images_per_s": 9.0} for s in (1, 2, 4)]
    events += [
        {"kind": "held_out", "step": s, "road_f1": 0.1 * s, "psnr": 20.0 + s, "park_iou": None}
        for s in (2, 4)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events) + '{"to')
    (folder / "config.toml").write_text('kind = "training" # <script>')
    for step in range(10, 310, 10):
        write_png(_made(folder / "samples") / f"step_{step}.png", np.zeros((40, 160, 3), np.uint8))
    write_png(folder / "sheet.png", np.zeros((50, 200, 3), np.uint8))
    (folder / "model").symlink_to(models / "unet")
    return folder


def _made(folder):
    folder.mkdir(exist_ok=True)
    return folder


def test_a_run_has_curves_samples_figures_network_and_job_on_one_page(run):
    page = write_run_page(run)
    html = page.read_text()
    assert page.name == "report.html"
    for words in ("Losses in training", "Held-out figures", "road_f1", "Held-out psnr",
                  "Samples over time", "Step 10:", "Step 300:", "sheet.png", "downs.0", "head",
                  "kind = &quot;training&quot; # &lt;script&gt;", "Run run&lt;1&gt;"):  # fmt: skip
        assert words in html, words
    assert "images_per_s" not in html
    assert html.count('class="sample"') == 24
    assert html.count("<script") == 1
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)""", html)
    assert all(address.startswith("data:") for address in addresses)


def test_pictures_that_are_damaged_or_of_others_are_left_out(run):
    (run / "samples" / "step_best.png").write_bytes((run / "sheet.png").read_bytes())
    torn = run / "samples" / "step_300.png"
    torn.write_bytes(torn.read_bytes()[:40])
    (run / "my_sheet.png").write_text("no picture")
    html = write_run_page(run).read_text()
    assert "Step 10:" in html
    assert "Step 300:" not in html
    assert "my_sheet" not in html


@pytest.mark.parametrize(("length", "side"), [(5, 40), (13, 30_000)])
def test_a_picture_whose_header_is_damaged_is_left_out(run, length, side):
    """Of these Pillow raises no OSError: a header too short, and pixels without end."""
    damaged = run / "samples" / "step_300.png"
    data = bytearray(damaged.read_bytes())
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data[8:33] = struct.pack(">I", length) + header + struct.pack(">I", zlib.crc32(header))
    damaged.write_bytes(data)
    html = write_run_page(run).read_text()
    assert "Step 10:" in html
    assert "Step 300:" not in html


def test_a_run_that_has_not_ended_has_a_page_too(tmp_path):
    html = write_run_page(tmp_path).read_text()
    assert "The network" not in html
    assert "Samples" not in html


def test_a_sweep_compares_its_runs_and_marks_the_best(tmp_path, run):
    runs = [
        ("l1=0", run, {"road_f1": 0.5, "road_invented": 0.4, "sharpness": 0.5}),
        ("l1=9", run, {"road_f1": 0.4, "road_invented": 0.2, "sharpness": 1.1}),
        ("l1=<b>", run, {"road_f1": float("nan")}),
    ]
    html = write_sweep_page(tmp_path, runs).read_text()
    assert re.findall(r"<strong>([\d.]+)", html) == ["0.5", "0.2", "1.1"]
    assert "l1=&lt;b&gt;" in html
    assert "Held-out road_f1" in html


def test_a_figure_whose_name_is_html_stays_text(tmp_path, run):
    runs = [("a", run, {"<img src=x onerror=alert(1)>_iou": 0.5})]
    html = write_sweep_page(tmp_path, runs).read_text()
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;_iou" in html


def test_the_network_is_listed_in_the_order_of_the_data():
    generator = build_generator("unet", {"width": 4}, 3, "rgb").eval()
    layers = layers_of(generator, 256)
    assert [layer.name for layer in layers][:2] == ["downs.0", "downs.1"]
    assert layers[0].shape == "4 x 128 x 128"
    assert sum(layer.parameters for layer in layers) == sum(
        parameter.numel() for parameter in generator.parameters()
    )
    assert not any(module._forward_hooks for module in generator.modules())


def test_the_layers_of_an_encoder_are_named_one_by_one():
    layers = layers_of(build_generator("efficientnet", {"width": 4}, 5), 64)
    names = [layer.name for layer in layers]
    assert names[:3] == ["fine", "encoder.stem", "encoder.stages.0"] and names[-1] == "head"
    assert layers[names.index("encoder.stages.6")].shape == "320 x 2 x 2"
    assert all(layer.shape for layer in layers)


def test_curves_leave_out_what_is_not_finite_and_labels_do_not_collide():
    curves = {name: [(0, 0.5), (1, float("nan")), (2, 0.5)] for name in "abc"}
    svg = curves_svg(curves | {"none": []}, title="x")
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" class="name"', svg)]
    assert len(heights) == 3
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 12
    assert "nan" not in svg
    assert curves_svg({"none": []}, title="x") == ""


@pytest.mark.browser
def test_the_slider_shows_one_sample_at_a_time(browser, run):
    from selenium.webdriver.common.keys import Keys

    browser.get(write_run_page(run).as_uri())
    shown = (
        "return [...document.querySelectorAll('.sample:not([hidden])')].map(e => e.dataset.step)"
    )
    assert browser.execute_script(shown) == ["300"]
    slider = browser.find_element("id", "scrub")
    slider.send_keys(Keys.HOME)
    assert browser.execute_script(shown) == ["10"]
    slider.send_keys(Keys.ARROW_RIGHT)
    assert slider.get_attribute("aria-valuetext") == "step 20"
    assert slider.accessible_name == "Step"
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("count", [1, 12, 40])
def test_every_name_of_many_curves_lies_inside_and_none_over_another(count):
    curves = {f"class {k}": [(0, 0.0), (1, 0.9 + 0.001 * k)] for k in range(count)}
    svg = curves_svg(curves, title="many")
    height = int(re.search(r'viewBox="0 0 720 (\d+)"', svg)[1])
    places = sorted(float(y) for y in re.findall(r'<text x="\d+" y="([\d.]+)" class="name"', svg))
    assert len(places) == count
    assert places[0] >= 10  # the height of its letters
    assert places[-1] <= height
    assert all(below - above >= 12.9 for above, below in itertools.pairwise(places))


def test_figures_of_classes_have_charts_of_their_own(tmp_path):
    event = {"kind": "held_out", "step": 1, "ssim": 0.5, "rail_iou": 0.5, "rail_invented": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    html = write_run_page(tmp_path).read_text()
    charts = re.findall(r"<figcaption>(.*?)</figcaption>(.*?)</figure>", html, re.DOTALL)
    names = {title: re.findall(r'class="name">(\w+)', drawn) for title, drawn in charts}
    assert names == {
        "Held-out figures": ["ssim"],
        "Held-out areas of classes": ["rail_iou"],
        "Held-out share of what is invented": ["rail_invented"],
    }
