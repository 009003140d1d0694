"""Web servers' index pages: the files that they link to."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from tilemapper.archive import remote
from tilemapper.errors import JobError
from tilemapper.raster.secrets import public

MAX_FOLDERS = 10_000


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for key, value in attrs if key == "href" and value]


def linked(prefix: str) -> Iterator[str]:
    """Files linked from an index page and the pages below it, never above or elsewhere.

    Raises:
        JobError: a page cannot be had, or there are more than 10,000 of them.
        TryAgainError: the server does not answer.
    """
    waiting, seen, folders = [prefix], {prefix}, 0
    while waiting:
        page = waiting.pop()
        parser = _Links()
        parser.feed(remote.fetch(page).decode(errors="replace"))
        for href in parser.found:
            try:
                url = urljoin(page, href)
                parts = urlsplit(url)
            except ValueError:  # such as a bracket that is left open
                continue
            if parts.query or parts.fragment or url in seen or not url.startswith(prefix):
                continue
            seen.add(url)
            if not url.endswith("/"):
                yield url
                continue
            folders += 1
            if folders > MAX_FOLDERS:  # such as a page that makes up folders for ever
                raise JobError(
                    f"{public(prefix)}: has more than {MAX_FOLDERS} folders; name those that are "
                    "meant, or a list of scenes, in source.scenes"
                )
            waiting.append(url)
