"""A synthetic city seen from above, and its true map: any size, any window, always the same.

How it is made, from the top: `files` writes windows; `painter` paints one by laying districts
(`district`, `blocks`, `buildings`, `park`), then water (`river`), then motorways (`roads`,
`motorway`) over each other; `plan` says where these lie, `tones` what they look like, and `dice`
draws all that is random.
"""

from tilemapper.report.city.files import CRS, GSD_M, SampleFiles, write_city
from tilemapper.report.city.painter import paint

__all__ = ["CRS", "GSD_M", "SampleFiles", "paint", "write_city"]
