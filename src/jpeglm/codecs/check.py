"""`jpeglm check`: is a file a canonical, complete stream, and if not, at which byte and why.

Settings that are not given are read from the file itself: size, subsampling and restart interval
from its segments, quality as the one whose standard quantisation tables the file carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jpeglm.codecs.avc import AvcCodec, is_annex_b
from jpeglm.codecs.jpeg import JpegCodec, segments
from jpeglm.codecs.mp4 import refuse_other_film
from jpeglm.config import InputError, JpegConfig
from jpeglm.syntax.scan import StreamError

ORDINARY = (
    "a JPEG, but not a canonical one (baseline, of whole MCUs, with standard tables and no further "
    "segments, as jpeglm writes it; complete and prepare take pictures of any kind)"
)


class Ordinary(InputError):
    """What is right for a JPEG, but not as jpeglm writes it."""


_SAMPLING = {(2, 2): "4:2:0", (2, 1): "4:2:2", (1, 1): "4:4:4"}

MOST_BYTES = 20 << 20
"""Of a file; its symbols take some 20 times as much memory."""


@dataclass(frozen=True)
class Verdict:
    valid: bool
    reason: str
    codec: dict[str, Any] | None = None
    dc_fits: bool = True
    """Whether the running DC values stay within int16, so that every decoder agrees."""


def infer_config(data: bytes, wanted: dict[str, Any]) -> JpegConfig:
    """The settings a file was written with; `wanted` (name → value or None) takes precedence."""
    values: dict[str, Any] = {"restart_interval": 0}
    tables: list[bytes] = []
    for marker, place, payload in segments(data):
        if marker in (0xC1, 0xC2, 0xC3, 0xC9, 0xCA):
            raise Ordinary(f"the file is not baseline sequential JPEG, at byte {place}")
        if marker == 0xC0:
            # Precision, height, width, then three bytes for each component (T.81 B.2.2).
            if len(payload) < 6 or len(payload) != 6 + 3 * payload[5]:
                raise InputError(f"its frame header is {len(payload)} bytes long, at byte {place}")
            values["height"] = int.from_bytes(payload[1:3], "big")
            values["width"] = int.from_bytes(payload[3:5], "big")
            components = payload[5]
            sampling = (payload[7] >> 4, payload[7] & 15) if components else (0, 0)
            if components == 1:
                values["subsampling"] = "gray"
            elif components == 3 and sampling in _SAMPLING:
                values["subsampling"] = _SAMPLING[sampling]
            else:
                raise Ordinary(
                    f"its sampling factors are not 4:2:0, 4:2:2 or 4:4:4, at byte {place}"
                )
        elif marker == 0xDD:
            if len(payload) != 2:
                raise InputError(f"its restart interval is no two bytes, at byte {place}")
            values["restart_interval"] = int.from_bytes(payload, "big")
        elif marker == 0xDB:
            tables.append(payload)
    values |= {name: value for name, value in wanted.items() if value is not None}
    if "width" not in values or "subsampling" not in values:
        raise InputError("it has no frame header (SOF0) of a baseline JPEG")
    for name, unit in zip(("width", "height"), JpegConfig.MCU.get(values["subsampling"], (1, 1))):
        if values[name] % unit:
            raise Ordinary(f"its {name}, {values[name]}, is no whole number of MCUs of {unit}")
    if "quality" in values or not tables:
        return JpegConfig(**values)
    for quality in range(1, 101):
        config = JpegConfig(**values, quality=quality)
        if all(table in JpegCodec(config).tables for table in tables):
            return config
    raise Ordinary("its quantisation tables are not the standard ones of any quality 1 to 100")


def check_clip(data: bytes, codec: AvcCodec) -> Verdict:
    """Judge one film's bytes as a stream of `codec`; never raises on what they hold.

    An .mp4 is judged to the last byte: it must be the file that `wrap` makes of its stream.
    """
    try:
        stream = codec.unwrap(data)
        codec.check(stream)
        if is_annex_b(data):
            if data not in (stream, codec.wrap_annex_b(stream)):
                raise InputError("its slices are canonical, but there is more in it than them")
        else:
            refuse_other_film(data, codec.wrap(stream))
        return Verdict(True, "", codec.to_dict())
    except InputError as error:
        return Verdict(False, str(error), codec.to_dict())


def check_file(data: bytes, wanted: dict[str, Any]) -> Verdict:
    """Judge one file's bytes; never raises on what they hold."""
    stream = b""
    try:
        config = infer_config(data, wanted)
        codec = JpegCodec(config)
        try:
            stream = codec.unwrap(data)
        except InputError as error:
            raise Ordinary(str(error)) from error
        fits = codec.check(stream)
        return Verdict(True, "", codec.to_dict(), fits)
    except StreamError as error:
        # Places are counted in the file that the user has, tables included.
        place = error.place + (len(data) - len(stream) if stream else 0)
        return Verdict(False, f"{error.reason}, at byte {place}", codec.to_dict())
    except Ordinary as error:
        return Verdict(False, f"{ORDINARY}: {error}")
    except InputError as error:
        return Verdict(False, str(error))
