"""Times of `tilemapper serve`: first picture of the page, and live tiles of the map.

    python tests/benchmarks/serve.py --size 4096
    python tests/benchmarks/serve.py --size 4096 --browser

The server runs as a process of its own, with the shipped model, on a synthetic city; it has
rendered one tile before anything is measured (warm). *alone*: tiles of native zoom of which
nothing was rendered before, each with room around it. *beside*: tiles along a row, of which half
was rendered with the one before, as one pans. *again*: the same once more, from the cache.
*farther out*: one and two zooms above the native one, where a tile costs 4 and 16 times as many.
*screen*: all tiles of 1400 x 800 px at native zoom, four at once, as the page asks for them.
*first picture*: page, script, configuration and the satellite tiles of the whole raster; with
--browser also the page's own mark, from navigation to the first picture in Chromium.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

VIEW = 1400, 800  # pixels of the page's canvas
AT_ONCE = 4  # requests that the page makes


class Client:
    """Requests to the server, timed."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str) -> tuple[float, bytes]:
        """Seconds and body of one request over a connection of its own."""
        begun = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{path}: status {answer.status}")
        return time.perf_counter() - begun, body

    def all(self, paths: Iterable[str]) -> float:
        """Seconds until all have come, as many at once as the page asks for."""
        begun = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self.get, paths))
        return time.perf_counter() - begun


def first_picture(client: Client) -> float:
    """Seconds from nothing to the satellite image of the whole raster."""
    begun = time.perf_counter()
    for path in ("/", "/page/page.css", "/page/page.js", "/page/viewer.js", "/page/layer.js"):
        client.get(path)
    scene = json.loads(client.get("/api/config")[1])["scenes"][0]
    left, top, right, bottom = scene["bounds"]
    fitting = min(VIEW[0] / (right - left), VIEW[1] / (bottom - top)) / 256 * 0.96
    client.all(tiles_over(scene, "source", math.ceil(math.log2(fitting) - 0.25)))
    return time.perf_counter() - begun


def tiles_over(scene: dict[str, Any], layer: str, z: int) -> list[str]:
    """Addresses of all tiles of a zoom that the raster reaches into."""
    left, top, right, bottom = (value * 2**z for value in scene["bounds"])
    return [
        f"/xyz/{scene['id']}/{layer}/{z}/{x}/{y}.png"
        for y in range(int(top), math.ceil(bottom))
        for x in range(int(left), math.ceil(right))
    ]


def measure(client: Client, model: str) -> list[tuple[str, list[float]]]:
    """Each row of the table: what, and its times in seconds."""
    scene = json.loads(client.get("/api/config")[1])["scenes"][0]
    known = json.loads(client.get(f"/api/scenes/{scene['id']}/maps/{model}")[1])
    z = known["native_zoom"]
    left, top, right, bottom = (value * 2**z for value in scene["bounds"])
    x0, y0, x1, y1 = math.ceil(left), math.ceil(top), int(right), int(bottom)

    def tile(x: int, y: int, out: int = 0) -> str:
        return f"/xyz/{scene['id']}/{model}/{z - out}/{x >> out}/{y >> out}.png"

    client.get(tile(x1 - 1, y1 - 1))  # warm
    half = y0 + (y1 - y0) // 2
    alone = [tile(x, y) for y in range(y0, half - 3, 3) for x in range(x0, x1 - 1, 3)]
    beside = [tile(x, half) for x in range(x0, x1 - 1)]
    columns, lines = -(-VIEW[0] // 256), -(-VIEW[1] // 256)
    screen = [tile(x0 + x, y1 - 1 - y) for y in range(lines) for x in range(columns)]
    rows = [("first picture, nothing read before", [first_picture(client)])]
    rows.append(("first picture, again", [first_picture(client) for _ in range(5)]))
    rows.append(("live tile, alone", [client.get(path)[0] for path in alone]))
    rows.append(("live tile, beside the last", [client.get(path)[0] for path in beside]))
    rows.append(("the same again", [client.get(path)[0] for path in beside]))
    rows.append(("a screen of 24 live tiles", [client.all(screen)]))
    for out in (1, 2):
        if z - out >= known["live_zoom"]:
            # Right of the screen above, where nothing was rendered yet.
            far = tile(x0 + columns + 2 + 2 * out, half + 4, out)
            rows.append((f"live tile, {out} zoom(s) farther out", [client.get(far)[0]]))
    return rows


def in_browser(port: int) -> float:
    """Seconds from navigation to the first picture, by the page's own mark."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.browser import chromium, wait_until

    script = "return performance.getEntriesByName('first-picture')[0]?.startTime"
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as browser:
        times = []
        for _ in range(5):
            browser.get(f"http://127.0.0.1:{port}/")
            wait_until(lambda: browser.execute_script(script) is not None)
            times.append(browser.execute_script(script) / 1000)
    return statistics.median(times)


def main() -> None:
    """Prints a table for ``results/``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--model", default="maps")
    parser.add_argument("--browser", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        city = Path(name) / "city.tif"
        tilemapper = [sys.executable, "-m", "tilemapper"]
        subprocess.run([*tilemapper, "sample", city, "--size", str(args.size)], check=True)
        begun = time.perf_counter()
        server = subprocess.Popen(
            [*tilemapper, "serve", city, "--port", "0", "--model", args.model],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            found = re.search(r":(\d+)/", server.stdout.readline())
            assert found
            ready_s = time.perf_counter() - begun
            port = int(found[1])
            rows = measure(Client(port), Path(args.model).name)
            shown_s = in_browser(port) if args.browser else None
        finally:
            server.terminate()
            server.wait()
    report(args, rows, ready_s, shown_s)


def report(
    args: argparse.Namespace,
    rows: list[tuple[str, list[float]]],
    ready_s: float,
    shown_s: float | None,
) -> None:
    """The table as Markdown."""
    import torch

    from tilemapper import __version__

    print(f"\n{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), Python")
    print(f"{platform.python_version()}, tilemapper {__version__}, torch {torch.__version__};")
    print(f"{args.size} x {args.size} px, model {args.model}; 1-minute load at the end")
    print(f"{os.getloadavg()[0]:.1f}; the server was ready after {ready_s:.1f} s.\n")
    print("| what | n | median ms | 90th of 100 | worst |")
    print("|---|---|---|---|---|")
    for what, times in rows:
        ordered = sorted(1000 * second for second in times)
        ninth = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
        middle = statistics.median(ordered)
        print(f"| {what} | {len(ordered)} | {middle:.0f} | {ninth:.0f} | {ordered[-1]:.0f} |")
    if shown_s is not None:
        print(f"| first picture in Chromium | 5 | {1000 * shown_s:.0f} | | |")


if __name__ == "__main__":
    main()
