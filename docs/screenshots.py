"""Takes the screenshots of these pages: what `compare` writes and what `serve` shows, in Chromium.

python docs/screenshots.py [OUT]     both, into docs/pictures/ by default

Needs chromium, chromedriver and the extras ``serve`` and ``test``. A synthetic city, the shipped
model; a minute.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from selenium import webdriver

import tilemapper
from tilemapper.report.city import write_city

PICTURES = Path(__file__).with_name("pictures")
HEIGHT, WIDTH = 1150, 2300  # of the city, pixels
WINDOW = "1180,860"


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[webdriver.Chrome]:
    """A headless browser with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--window-size={WINDOW}")
    options.add_argument(f"--user-data-dir={folder / 'profile'}")
    service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield browser
    finally:
        browser.quit()


@contextlib.contextmanager
def serving(city: Path) -> Iterator[str]:
    """A server of its own on a free port; yields its address when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tilemapper", "serve", str(city), "--port", str(port)]
    address = f"http://127.0.0.1:{port}/"
    with subprocess.Popen(command) as server:
        try:
            for _ in range(300):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(address, timeout=5).close()
                    break
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()


def take(browser: webdriver.Chrome, address: str, target: Path, wait_s: float) -> None:
    """Opens a page, lets it come to rest, and saves what is seen."""
    browser.get(address)
    time.sleep(wait_s)
    browser.save_screenshot(str(target))
    with Image.open(target) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(target, optimize=True)


def main(out: Path) -> None:
    """Both pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        city, truth, page = (folder / part for part in ("city.tif", "truth.tif", "report.html"))
        write_city(city, truth=truth, height=HEIGHT, width=WIDTH)
        tilemapper.render(city, folder / "map.tif")
        tilemapper.compare(city, folder / "map.tif", page, truth=truth)
        with chromium(folder) as browser:
            take(browser, page.as_uri(), out / "compare.png", wait_s=3)
            with serving(city) as address:
                take(browser, address, out / "serve.png", wait_s=25)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else PICTURES)
