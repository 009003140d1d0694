"""The slider of a render's result, as a notebook would show it, in a real browser."""

from __future__ import annotations

import shutil

import pytest

import tilemapper

pytestmark = pytest.mark.browser


def test_the_slider_moves_the_border_by_keyboard_and_asks_nobody(models, tmp_path, make_raster):
    pytest.importorskip("selenium")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver on the PATH")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    from tests.browser import chromium, console, requests_elsewhere

    result = tilemapper.render(make_raster(300, 400), tmp_path / "map.tif", models / "unet")
    page = tmp_path / "cell.html"
    page.write_text(f"<!doctype html><title>cell</title>{result._repr_html_()}")
    with chromium(tmp_path) as browser:
        browser.get(page.as_uri())
        requests_elsewhere(browser)
        over = browser.find_element(By.CSS_SELECTOR, "img.over")
        slider = browser.find_element(By.CSS_SELECTOR, "input[type=range]")
        assert over.size == {"width": 400, "height": 300}
        assert "50%" in over.value_of_css_property("clip-path")
        slider.send_keys(Keys.HOME)
        assert "0%)" in over.value_of_css_property("clip-path").replace("0px", "0%")
        slider.send_keys(Keys.END)
        assert "100%" in over.value_of_css_property("clip-path")
        assert not console(browser)
        assert not requests_elsewhere(browser)
