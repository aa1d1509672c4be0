"""The boxes of an .mp4 file (ISO/IEC 14496-12), for judging whether it is the one that we write.

FFmpeg reads damaged containers as well as it can, so a film that plays need not be whole. Two files
are the same film here if their boxes hold the same bytes, but for what differs between releases of
FFmpeg: tags, such as its own name, and a few boxes that one writes and another does not.
"""

from __future__ import annotations

from jpeglm.config import InputError, StreamError

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
OPTIONAL = (b"udta", b"free", b"edts", b"sgpd", b"sbgp")
"""Of these one release writes more than another; tags lie in the first."""


def boxes(data: bytes) -> dict[tuple[bytes, ...], bytes]:
    """Path of types → content of each box that holds no others; InputError where they do not fit
    into each other without a gap, or one comes twice."""
    found: dict[tuple[bytes, ...], bytes] = {}
    waiting: list[tuple[tuple[bytes, ...], int, int]] = [((), 0, len(data))]
    while waiting:
        path, at, end = waiting.pop()
        while at < end:
            size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if at + 8 > end or not 8 <= size <= end - at:
                raise StreamError("a box of its container does not fit", at)
            place = (*path, kind)
            if place in found:
                raise StreamError(f"its container has two boxes {kind!r}", at)
            found[place] = b"" if kind in CONTAINERS else data[at + 8 : at + size]
            if kind in CONTAINERS:
                waiting.append((place, at + 8, at + size))
            at += size
    return found


def refuse_other_film(data: bytes, ours: bytes) -> None:
    """InputError at the first box of a file that is not as in `ours`, the same stream as we wrap
    it."""
    given, expected = boxes(data), boxes(ours)
    for place in [*expected, *given]:
        if place[-1] in OPTIONAL and (
            place[-1] == b"udta" or not {place} <= {*given} & {*expected}
        ):
            continue
        if given.get(place) != expected.get(place):
            name = "/".join(kind.decode("latin-1") for kind in place)
            raise InputError(
                f"its stream is canonical, but its container is not: the box {name!r} is not as "
                "jpeglm writes it"
            )
