"""The page in a real browser: drop, translate, swipe, zoom, download, with the shipped model.

``TILEMAPPER_SCREENSHOTS`` names a folder in which pictures of the page are left.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser import chromium, console, requests_elsewhere, wait_until
from tests.conftest import write_raster
from tests.serve.test_server import process
from tilemapper.raster.opening import open_raster
from tilemapper.report.city.files import write_city

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
DROP = """
const [bytes, name, done] = arguments;
const file = new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name);
const transfer = new DataTransfer();
transfer.items.add(file);
for (const kind of ["dragenter", "dragover"]) {
  document.getElementById("map").dispatchEvent(
    new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}
requestAnimationFrame(() => {
  const seen = !document.getElementById("drop").hidden;
  document.getElementById("map").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  done(seen);
});
"""


class Page:
    """The page, in the words of its user."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get(url)

    def find(self, name):
        return self.browser.find_element(By.ID, name)

    def click(self, name):
        self.find(name).click()

    def settle(self):
        """Waits until everything in sight is drawn."""
        run = self.browser.execute_script
        quiet = "return !!document.body.dataset.shown && document.body.dataset.pending === '0'"
        for _ in range(3):  # a tile that comes may ask for a frame, which may ask for tiles
            wait_until(lambda: run(quiet))
            self.browser.execute_async_script(
                "const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 150))"
            )

    def focused(self):
        """The element that has the keyboard."""
        return self.browser.switch_to.active_element

    def picture(self, name):
        """(height, width, 3) of the canvas as it is on the screen."""
        png = self.find("stage").screenshot_as_png
        folder = os.environ.get("TILEMAPPER_SCREENSHOTS")
        if folder:
            self.browser.save_screenshot(str(Path(folder) / f"serve_{name}.png"))
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A page of a server with a city of 2048 px, the browser's folder, and the city."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "tmp").mkdir()
    city = folder / "imagery" / "city.tif"
    city.parent.mkdir()
    write_city(city, height=2048, width=2048, seed=4)
    models = Path(__file__).parents[2] / "models"
    args = (str(city), "--allow", str(city.parent))
    with (
        process(*args, models=models, temporary=folder / "tmp") as (_, port),
        chromium(folder) as browser,
    ):
        yield Page(browser, f"http://127.0.0.1:{port}/"), folder, city
        assert console(browser) == []
        assert requests_elsewhere(browser) == []


def colours_of(picture):
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0)}


def test_satellite_and_map_are_shown_swiped_and_zoomed(opened):
    page, _, _ = opened
    page.settle()
    page.click("native")
    page.settle()
    both = page.picture("swipe")
    middle, width = both.shape[1] // 2, both.shape[1]
    left, right = both[100:500, : middle - 60], both[100:500, middle + 60 :]
    # The map has a few flat colours, the satellite image thousands.
    assert len(colours_of(left)) > 3000
    assert len(colours_of(right)) < 300
    handle = page.find("handle")
    ActionChains(page.browser).drag_and_drop_by_offset(handle, -width // 4, 0).perform()
    page.settle()
    swiped = page.picture("swiped")
    assert abs(int(handle.get_attribute("aria-valuenow")) - 25) <= 1
    moved = swiped[100:500, width // 4 + 60 : middle - 60]
    assert len(colours_of(moved)) < 300
    assert np.array_equal(swiped[100:500, middle + 60 :], right)  # what was there stays
    handle.send_keys(Keys.END)
    page.settle()
    assert handle.get_attribute("aria-valuenow") == "100"
    page.click("swipe")
    handle.send_keys(Keys.HOME, Keys.PAGE_UP, Keys.PAGE_UP)
    page.click("side")
    page.settle()
    aside = page.picture("side")
    assert len(colours_of(aside[100:500, : middle - 60])) > 3000
    assert len(colours_of(aside[100:500, middle + 60 :])) < 300
    page.click("swipe")


def test_the_map_shows_no_lattice_while_it_is_moved(opened):
    page, _, _ = opened
    page.find("handle").send_keys(Keys.HOME)  # the map alone
    page.click("native")
    page.settle()
    before = page.picture("map")
    canvas = page.find("map")
    ActionChains(page.browser).drag_and_drop_by_offset(canvas, -140, -90).perform()
    page.settle()
    after = page.picture("map_moved")
    inner = after[60:400, 60:900]
    assert np.array_equal(inner, before[150:490, 200:1040])


def test_wheel_keys_and_buttons_zoom(opened):
    page, _, _ = opened
    run = page.browser.execute_script

    def zoom():
        page.settle()
        return float(page.find("zoom").text.removeprefix("zoom "))

    page.click("native")
    begun = zoom()
    page.click("in")
    assert zoom() == begun + 1
    page.find("map").send_keys("-", "-")
    assert zoom() == begun - 1
    run(
        "document.getElementById('map').dispatchEvent(new WheelEvent('wheel',"
        "{deltaY: -120, clientX: 500, clientY: 400, bubbles: true, cancelable: true}))"
    )
    assert begun - 1 < zoom() < begun
    page.click("fit")
    page.settle()
    page.find("handle").send_keys(Keys.END, Keys.PAGE_DOWN, Keys.PAGE_DOWN)
    page.settle()
    assert len(colours_of(page.picture("whole"))) > 3000
    page.find("map").send_keys("-", "-")
    page.settle()
    # Too far out for the map: the satellite image, dimmed, and a note; never a wrong map.
    assert page.find("note").is_displayed()
    page.picture("note")
    page.click("note-zoom")
    page.settle()
    assert not page.find("note").is_displayed()
    assert page.focused() == page.find("map")


def test_keys_of_the_browser_are_left_to_it(opened):
    """Who zooms the page with Ctrl, or goes back with Alt, means the browser."""
    page, _, _ = opened
    taken = page.browser.execute_script(
        "const taken = [];"
        "for (const [name, key, held] of arguments[0]) {"
        "  const event = new KeyboardEvent('keydown', { key, [held]: true, cancelable: true });"
        "  if (!document.getElementById(name).dispatchEvent(event)) taken.push([name, key, held]);"
        "} return taken;",
        [
            ["map", "+", "ctrlKey"],
            ["map", "-", "metaKey"],
            ["map", "0", "ctrlKey"],
            ["map", "ArrowLeft", "altKey"],
            ["handle", "ArrowLeft", "altKey"],
        ],
    )
    assert taken == []


def test_a_late_answer_does_not_take_the_chosen_raster_away(opened):
    """The first raster's map is refused only after the second raster was chosen."""
    page, folder, city = opened
    page.browser.refresh()
    page.settle()
    (folder / "imagery" / "late.tif").write_bytes(city.read_bytes())
    late = page.browser.execute_async_script(
        "const done = arguments[0]; fetch('/api/scenes', {method: 'POST',"
        "headers: {'Content-Type': 'application/json'},"
        "body: JSON.stringify({folder: 0, path: 'late.tif'})}).then((a) => a.json()).then(done)"
    )["id"]
    page.browser.refresh()
    page.settle()
    page.browser.execute_script(
        "const [late, ask] = [arguments[0], window.fetch];"
        "window.fetch = (path, ...rest) => String(path).includes(`${late}/maps/`)"
        "  ? new Promise((_, refuse) => { window.refuse = () => refuse(new Error('too late')); })"
        "  : ask(path, ...rest);"
        "const raster = document.getElementById('raster');"
        "const choose = (id) => { raster.value = id; raster.dispatchEvent(new Event('change')); };"
        "const other = [...raster.options].find((one) => one.value !== late).value;"
        "choose(late); setTimeout(() => choose(other), 200);",
        late,
    )
    wait_until(lambda: "late.tif" not in page.find("about").text)
    page.settle()
    page.browser.execute_script("window.refuse()")
    page.settle()
    assert "too late" not in page.find("status").text
    assert page.find("render").is_enabled()
    page.browser.refresh()


def test_a_raster_across_the_date_line_is_shown_as_one(tmp_path):
    """One town of two halves, and not the whole world with a speck at either end."""
    (tmp_path / "tmp").mkdir()
    halves = np.zeros((3, 400, 400), np.uint8)
    halves[0, :, :200], halves[1, :, 200:] = 255, 255
    place = {"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 179.998, 0, -1e-5, 10)}
    source = write_raster(tmp_path / "line.tif", halves, **place)
    models = Path(__file__).parents[2] / "models"
    with (
        process(str(source), models=models, temporary=tmp_path / "tmp") as (_, port),
        chromium(tmp_path) as browser,
    ):
        page = Page(browser, f"http://127.0.0.1:{port}/")
        page.settle()
        page.find("handle").send_keys(Keys.END)
        page.settle()
        picture = page.picture("date_line")
        assert console(browser) == []
    red = (picture == (255, 0, 0)).all(axis=2)
    green = (picture == (0, 255, 0)).all(axis=2)
    assert min(red.sum(), green.sum()) > 0.15 * red.size
    assert np.flatnonzero(red.any(axis=0)).max() < np.flatnonzero(green.any(axis=0)).min()


def test_a_raster_of_an_allowed_folder_is_picked(opened):
    page, folder, city = opened
    other = folder / "imagery" / "other.tif"
    other.write_bytes(city.read_bytes())
    page.settle()
    page.click("pick")
    entries = page.find("entries")
    wait_until(lambda: "other.tif" in entries.text)
    page.picture("folders")
    assert page.focused() == entries.find_element(By.TAG_NAME, "button")
    next(b for b in entries.find_elements(By.TAG_NAME, "button") if b.text == "other.tif").click()
    wait_until(lambda: "other.tif" in page.find("about").text)
    page.settle()
    assert "other.tif" in page.find("about").text


def test_a_dropped_image_is_translated_and_downloaded(opened):
    page, folder, city = opened
    with rasterio.open(city) as src:
        cut = src.read(window=((300, 900), (400, 1200))).transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(cut).save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()).decode()
    assert page.browser.execute_async_script(DROP, text, "dropped town.png") is True
    wait_until(lambda: "dropped town.png: 800 x 600 px" in page.find("about").text)
    page.settle()
    page.click("native")
    page.settle()
    page.picture("dropped")
    page.find("render").send_keys(Keys.ENTER)
    wait_until(lambda: page.find("tif").is_displayed(), 120)
    assert page.focused() == page.find("tif")
    page.picture("rendered")
    for kind, name in (("tif", "dropped town_maps.tif"), ("png", "dropped town_maps.png")):
        page.click(kind)
        got = folder / "got" / name
        wait_until(got.exists)
    with open_raster(str(folder / "got" / "dropped town_maps.tif")) as src:
        pixels = src.read().transpose(1, 2, 0)
    assert pixels.shape == (600, 800, 3)
    assert len(colours_of(pixels)) < 20
    assert np.array_equal(np.asarray(Image.open(got)), pixels)


def test_what_is_no_image_is_said_on_the_page(opened):
    page, _, _ = opened
    text = base64.b64encode(b"this is a letter").decode()
    page.browser.execute_async_script(DROP, text, "letter.txt")
    wait_until(lambda: "letter.txt" in page.find("status").text)
    page.picture("refused")
    assert "no raster of a known kind" in page.find("status").text
    # The browser itself notes every answer that is no success; nothing else was said.
    assert all("422" in line for line in console(page.browser))


def test_legend_and_api_page(opened):
    page, _, _ = opened
    page.click("more")
    assert "motorway" in page.find("legend").text
    assert "no place for this image" in page.find("details").text
    page.picture("details")
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    page.settle()
    page.picture("dark")
    page.browser.get(page.browser.current_url + "api")
    wait_until(lambda: "/api/uploads" in page.browser.find_element(By.TAG_NAME, "body").text)
    if folder := os.environ.get("TILEMAPPER_SCREENSHOTS"):
        page.browser.save_screenshot(str(Path(folder) / "serve_api.png"))
