"""The page of a comparison in a real browser, from file://, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tilemapper
from tests.conftest import write_raster

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory, models) -> Path:
    """The page of a picture whose halves are dark and bright, with its map by the stand-in."""
    folder = tmp_path_factory.mktemp("page")
    rows, cols = np.mgrid[:700, :900]
    grey = np.where(cols < 450, 60, 180) + 30 * np.sin(rows / 20) * np.cos(cols / 30)
    city = write_raster(folder / "city.tif", np.stack([grey] * 3).astype(np.uint8))
    tilemapper.render(city, folder / "map.tif", models / "classes")
    found = tilemapper.compare(
        city, folder / "map.tif", folder / "report.html", model=models / "classes", truth=city
    )
    return Path(found.page)


def element(browser, name):
    return browser.find_element("id", name)


def clip(browser) -> str:
    return browser.execute_script("return document.getElementById('map').style.clipPath")


def scale(browser) -> float:
    """Screen pixels a pixel of the picture."""
    style = browser.execute_script("return document.getElementById('stage').style.transform")
    return float(style.partition("scale(")[2].rstrip(")"))


def requests(browser) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
        and not event["params"]["request"]["url"].startswith("data:")
    ]


def test_it_swipes_zooms_and_switches_by_keyboard_without_errors_or_requests(browser, page):
    from selenium.webdriver.common.keys import Keys

    browser.get(page.as_uri())
    handle, viewer = element(browser, "handle"), element(browser, "viewer")
    before = clip(browser)
    assert handle.get_attribute("aria-valuenow") == "50"
    handle.send_keys(Keys.ARROW_RIGHT * 5)
    assert handle.get_attribute("aria-valuenow") == "60"
    assert clip(browser) != before
    handle.send_keys(Keys.HOME)
    assert clip(browser) == "inset(0px 0px 0px 0px)" or clip(browser) == "inset(0px)"
    handle.send_keys(Keys.END)
    assert handle.get_attribute("aria-valuetext") == "100 % satellite"
    handle.send_keys(Keys.ALT + Keys.HOME + Keys.NULL)  # the browser's
    assert handle.get_attribute("aria-valuetext") == "100 % satellite"

    lattice, heat = element(browser, "lattice"), element(browser, "heat")
    assert not lattice.is_displayed()
    element(browser, "show-lattice").send_keys(Keys.SPACE)
    assert lattice.is_displayed()
    assert element(browser, "lattice-starts").get_attribute("d").startswith("M160 0V700")
    viewer.send_keys("h")
    assert heat.is_displayed()
    assert element(browser, "show-heat").is_selected()

    whole = scale(browser)
    viewer.send_keys("+" + Keys.ARROW_RIGHT)
    assert scale(browser) == pytest.approx(1.5 * whole, rel=1e-4)
    assert "(EPSG:32618)" in element(browser, "place").text
    viewer.send_keys("0")
    assert scale(browser) == pytest.approx(whole, rel=1e-4)
    assert element(browser, "scale-words").text.endswith(" m")

    assert browser.get_log("browser") == []
    assert requests(browser) == [page.as_uri()]


def test_it_swipes_moves_and_zooms_by_pointer(browser, page):
    from selenium.webdriver import ActionChains

    browser.get(page.as_uri())
    viewer, handle = element(browser, "viewer"), element(browser, "handle")
    ActionChains(browser).drag_and_drop_by_offset(handle, -200, 0).perform()
    assert int(handle.get_attribute("aria-valuenow")) < 40
    left = browser.execute_script("return document.getElementById('stage').style.transform")
    ActionChains(browser).move_to_element_with_offset(viewer, 100, 60).perform()
    words = element(browser, "place").text
    assert "column" in words and "row" in words
    ActionChains(browser).click_and_hold().move_by_offset(30, 20).release().perform()
    assert browser.execute_script("return document.getElementById('stage').style.transform") != left
    before = scale(browser)
    ActionChains(browser).double_click().perform()
    assert scale(browser) == pytest.approx(2 * before, rel=1e-4)
    browser.find_element("css selector", "[data-col]").click()
    assert scale(browser) == pytest.approx(1)
    assert browser.get_log("browser") == []


def test_touch_swipes_and_pinches(browser, page):
    browser.get(page.as_uri())
    handle = element(browser, "handle").rect
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2

    def touch(kind, *points):
        places = [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(points)]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (x, y))
    touch("touchMove", (x + 150, y))
    touch("touchEnd")
    assert int(element(browser, "handle").get_attribute("aria-valuenow")) > 60
    before = scale(browser)
    touch("touchStart", (x - 200, y), (x - 150, y))
    touch("touchMove", (x - 225, y), (x - 125, y))
    touch("touchEnd")
    assert scale(browser) > 1.5 * before


@pytest.mark.parametrize(("height", "width"), [(6000, 31), (31, 6000), (30, 20)])
def test_strips_and_dots_lie_where_the_lattice_lies(browser, tmp_path, height, width):
    """Of a strip's shorter side the picture has ten pixels and a half, which is eleven or ten."""
    city = write_raster(tmp_path / "a.tif", np.full((3, height, width), 90, np.uint8))
    found = tilemapper.compare(city, city, tmp_path / "report.html", shift_blocks=0)
    browser.get(Path(found.page).as_uri())
    stage = browser.find_element("id", "stage")
    box = browser.execute_script(
        "const box = arguments[0].getBoundingClientRect(); return [box.width, box.height]", stage
    )
    whole = scale(browser)
    assert box[0] / box[1] == pytest.approx(width / height, rel=0.01)
    browser.find_element("id", "closer").click()
    assert scale(browser) >= whole  # a dot as a whole is larger than what may be zoomed to


def test_every_picture_has_words_every_field_a_name_and_text_stands_out(browser, page):
    browser.get(page.as_uri())
    assert all(image.get_attribute("alt") for image in browser.find_elements("tag name", "img"))
    for field in browser.find_elements("css selector", "button, input, [role=slider]"):
        assert field.accessible_name, field.get_attribute("outerHTML")
    assert browser.find_element("tag name", "html").get_attribute("lang") == "en"
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colours = browser.execute_script(
            "return ['body', '.lead', '.verdict', 'caption', 'tbody th'].map((name) => "
            "getComputedStyle(document.querySelector(name)).color).concat("
            "getComputedStyle(document.body).backgroundColor)"
        )
        *inks, paper = [luminance(colour) for colour in colours]
        for ink in inks:
            low, high = sorted((ink, paper))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, colours)


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it, of ``rgb(r, g, b)``."""
    values = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_on_paper_both_pictures_stand_side_by_side(browser, page):
    browser.get(page.as_uri())
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    source, painted = element(browser, "source").rect, element(browser, "map").rect
    assert source["x"] + source["width"] <= painted["x"]
    assert source["width"] == pytest.approx(painted["width"], abs=1)
    clipped = "return getComputedStyle(document.getElementById('map')).clipPath"
    assert browser.execute_script(clipped) == "none"
    assert not element(browser, "handle").is_displayed()
