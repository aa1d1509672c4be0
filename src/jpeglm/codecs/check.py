"""A JPEG judged without its codec at hand.

Settings that are not given are read from the file itself: size, subsampling and restart interval
from its segments, quality as the one whose standard quantisation tables the file carries.
"""

from __future__ import annotations

from typing import Any

from jpeglm.codecs.base import Verdict
from jpeglm.codecs.jpeg import JpegCodec, segments
from jpeglm.config import InputError, JpegConfig, StreamError

ORDINARY = (
    "a JPEG, but not a canonical one (baseline, of whole MCUs, with standard tables and no further "
    "segments, as jpeglm writes it; complete and prepare take pictures of any kind)"
)


class Ordinary(InputError):
    """What is right for a JPEG, but not as jpeglm writes it; place: at which byte, if at one."""

    def __init__(self, reason: str, place: int | None = None) -> None:
        super().__init__(f"{ORDINARY}: {reason}")
        self.place = place


_SAMPLING = {(2, 2): "4:2:0", (2, 1): "4:2:2", (1, 1): "4:4:4"}

MOST_BYTES = 20 << 20
"""Of a file; its symbols take some 20 times as much memory."""


def infer_config(data: bytes, wanted: dict[str, Any]) -> JpegConfig:
    """The settings a file was written with; `wanted` (name → value or None) takes precedence."""
    values: dict[str, Any] = {"restart_interval": 0}
    tables: list[bytes] = []
    for marker, place, payload in segments(data):
        if marker in (0xC1, 0xC2, 0xC3, 0xC9, 0xCA):
            raise Ordinary("the file is not baseline sequential JPEG", place)
        if marker == 0xC0:
            # Precision, height, width, then three bytes for each component (T.81 B.2.2).
            if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
                raise StreamError(f"its frame header is {len(payload)} bytes long", place)
            values["height"] = int.from_bytes(payload[1:3], "big")
            values["width"] = int.from_bytes(payload[3:5], "big")
            components = payload[5]
            sampling = (payload[7] >> 4, payload[7] & 15) if components else (0, 0)
            if components == 1:
                values["subsampling"] = "gray"
            elif components == 3 and sampling in _SAMPLING:
                values["subsampling"] = _SAMPLING[sampling]
            else:
                raise Ordinary("its sampling factors are not 4:2:0, 4:2:2 or 4:4:4", place)
        elif marker == 0xDD:
            if len(payload) != 2:
                raise StreamError("its restart interval is not two bytes long", place)
            values["restart_interval"] = int.from_bytes(payload, "big")
        elif marker == 0xDB:
            tables.append(payload)
    values |= {name: value for name, value in wanted.items() if value is not None}
    if "width" not in values or "subsampling" not in values:
        raise InputError("it has no frame header (SOF0) of a baseline JPEG")
    for name, unit in zip(("width", "height"), JpegConfig.MCU.get(values["subsampling"], (1, 1))):
        if values[name] % unit:
            raise Ordinary(f"its {name}, {values[name]}, is not a whole number of MCUs of {unit}")
    if "quality" in values or not tables:
        return JpegConfig(**values)
    for quality in range(1, 101):
        config = JpegConfig(**values, quality=quality)
        if all(table in JpegCodec(config).tables for table in tables):
            return config
    raise Ordinary("its quantisation tables are not the standard ones of any quality 1 to 100")


def check_file(data: bytes, wanted: dict[str, Any]) -> Verdict:
    """Judge one JPEG's bytes; never raises on what they hold."""
    try:
        codec = JpegCodec(infer_config(data, wanted))
        try:
            codec.unwrap(data)
        except InputError as error:
            raise Ordinary(str(error)) from error
    except Ordinary as error:
        return Verdict(False, str(error), error.place)
    except InputError as error:
        return Verdict.against(error)
    return codec.check(data)
