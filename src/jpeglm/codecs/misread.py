"""What Pillow reads wrongly without a word, put right before the pixels are decoded, or refused.

Found by comparing with ImageMagick. Trade-off: it knows Pillow's tiles by name, so each has
a test that fails when a release reads the format rightly by itself.
"""

from __future__ import annotations

import re
from typing import Any

from jpeglm.config import InputError

SIZ = b"\xff\x4f\xff\x51"
"""SOC and SIZ, with which a JPEG 2000 codestream begins (ITU-T T.800 A.5.1)."""
ODD_COLOUR = re.compile(rb"\sc\s+#(?![0-9a-fA-F]{6}(\s|$))")
"""A colour of an XPM in 3, 9 or 12 digits, of which Pillow takes the last six."""
SAVE_AS_PNG = "would be read wrongly; save it as PNG first"


def amend(image: Any, name: str) -> None:
    """Change an opened picture that is not loaded so that it loads rightly; InputError where only
    another reader could."""
    if image.format == "PNG":
        _scale_transparency(image)
    elif image.format == "SUN":  # the unused byte comes first (Sun's rasterfile.h)
        _rename(image, {"BGRX": "XBGR", "RGBX": "XRGB"})
    elif image.format == "TIFF":
        depth = max(image.tag_v2.get(258) or (1,))
        if depth == 16 and image.tag_v2.get(284) == 2:  # planes, of which 8 bits were read
            order = "B" if image.tag_v2.prefix == b"MM" else "L"
            _rename(image, {band: f"{band};16{order}" for band in "RGBA"}, codec="raw")
    elif image.format == "JPEG2000" and image.mode not in ("I;16", "L"):
        data = _content(image)
        place = data.find(SIZ) + 4 + 38  # three bytes of each component
        count = int.from_bytes(data[place - 2 : place])
        if any((byte & 127) >= 8 for byte in data[place : place + 3 * count : 3]):
            raise InputError(
                f"{name} is JPEG 2000 of more than 8 bits in colour, whose white {SAVE_AS_PNG}"
            )
    elif image.format == "XPM" and any(map(ODD_COLOUR.search, _colours(_content(image)))):
        raise InputError(
            f"{name} is XPM with colours of other than six digits, which {SAVE_AS_PNG}"
        )


def _colours(xpm: bytes) -> list[bytes]:
    """The rows behind the first, which says how many they are and how long the keys before them."""
    head, *rows = re.findall(rb'"([^"\n]*)"', xpm)
    _, _, count, length = map(int, head.split()[:4])
    return [row[length:] for row in rows[:count]]


def _scale_transparency(image: Any) -> None:
    """Grey of 2 and 4 bits is widened to 8, the grey that is transparent is not."""
    clear, rawmode = image.info.get("transparency"), image.tile[0].args if image.tile else ""
    if image.mode == "L" and isinstance(clear, int) and rawmode in ("L;2", "L;4"):
        white = (1 << int(rawmode[-1])) - 1
        image.info["transparency"] = clear * 255 // white
        if clear > white:
            del image.info["transparency"]


def _rename(image: Any, names: dict[str, str], codec: str | None = None) -> None:
    """Other raw modes in the tiles, of this codec alone if it is given."""
    image.tile = [
        tile._replace(args=(names.get(tile.args[0], tile.args[0]), *tile.args[1:]))
        if isinstance(tile.args, tuple) and codec in (None, tile.codec_name)
        else tile
        for tile in image.tile
    ]


def _content(image: Any) -> bytes:
    """All bytes of the file, which stays where it is."""
    place = image.fp.tell()
    image.fp.seek(0)
    data: bytes = image.fp.read()
    image.fp.seek(place)
    return data
