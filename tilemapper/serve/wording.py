"""Messages of the library, as those who look at the page can act on them."""

from __future__ import annotations

import re

_OF_RENDER = re.compile(r"--(?=(?:bidx|gsd|scale)\b)")  # what serve has no option for
AGAIN = "it was opened; open it again, or start the server again"


def plain(message: str, *, path: str, name: str) -> str:
    """A message about a raster, without its folder and without options that serve does not have.

    Args:
        message: of an error or a notice.
        path: of the raster; where it lies is nobody's business.
        name: what it is called instead.
    """
    message = message.replace(path, name)
    message = message.replace("the run was planned; start again with --restart", AGAIN)
    message = message.replace("--allow-driver", "tilemapper serve FILE --allow-driver")
    return _OF_RENDER.sub("tilemapper render --", message, count=1)
