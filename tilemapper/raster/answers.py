"""What GDAL says of a server that does not give a raster, in our words."""

from __future__ import annotations

import re

from tilemapper.errors import RasterError, ServerError

# Answers of a server that has too much to do, or waited too long; so are all from 500 on.
PASSING = (408, 425, 429)

# GDAL has the server's own words before the first, which may be a page.
_ANSWER = re.compile(r"HTTP (?:response|error) code: (\d{3})")
_SILENCE = re.compile(r"CURL error: [^;\n]{1,200}")
# No word of a server: the address may be wrong, or this machine without a network.
_NO_SERVER = "resolve host"


def passes(code: int) -> bool:
    """Whether a server's answer says nothing of what was asked for, and another may come later."""
    return code in PASSING or code >= 500


def refusal(path: str, said: str) -> RasterError | None:
    """The error of a raster that its server does not give; None where GDAL says something else.

    Args:
        path: the raster, or one of which a part lies on a server.
        said: GDAL's words.
    """
    found = _ANSWER.search(said) or _SILENCE.search(said)
    if found is None:
        return None
    if passes(int(found[1])) if found.re is _ANSWER else _NO_SERVER not in found[0]:
        return ServerError(
            f"{path}: the server does not answer, or is in trouble ({found[0]}); run the same "
            "command again later"
        )
    return RasterError(
        f"{path}: the server does not give it ({found[0]}); check the address, rights and "
        "credentials"
    )
