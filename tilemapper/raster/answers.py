"""What GDAL says of a server that does not give a raster, in our words."""

from __future__ import annotations

import re

from tilemapper.errors import RasterError, ServerError

# Answers of a server that has too much to do, or waited too long; so are all from 500 on.
PASSING = (408, 425, 429)

# GDAL has the server's own words before the first, which may be a page.
# Of a read it tells the code alone, and 0 where there was no answer.
_ANSWER = re.compile(r"(?:HTTP (?:response|error) code: |response_code=)(\d+)")
_SILENCE = re.compile(r"CURL error: [^;\n]{1,200}")
# No word of a server: the address may be wrong, or this machine without a network.
_NO_SERVER = "resolve host"


def passes(code: int) -> bool:
    """Whether a server's answer says nothing of what was asked for, and another may come later.

    code: 0 if it gave none.
    """
    return code in PASSING or code >= 500 or code == 0


def refusal(path: str, said: str) -> RasterError | None:
    """The error of a raster that its server does not give; None where GDAL says something else.

    Args:
        path: the raster, or one of which a part lies on a server.
        said: GDAL's words.
    """
    answered, silence = _ANSWER.search(said), _SILENCE.search(said)
    if answered is None and silence is None:
        return None
    code = 0 if answered is None else int(answered[1])
    what = "no answer" if silence is None else silence[0]
    if answered is not None and code:
        what = answered[0]
    if passes(code) and _NO_SERVER not in what:
        return ServerError(
            f"{path}: the server does not answer, or is in trouble ({what}); run the same "
            "command again later"
        )
    return RasterError(
        f"{path}: the server does not give it ({what}); check the address, rights and credentials"
    )
