"""`check` of a clip: the stream is judged, and so is every byte of the container around it."""

import random

import numpy as np
import pytest

from jpeglm.codecs.avc import AvcCodec, AvcConfig

pytest.importorskip("av")

CODEC = AvcCodec(AvcConfig(64, 48, 4, 8.0))


@pytest.fixture(scope="module")
def film():
    rng = np.random.default_rng(0)
    return CODEC.wrap(CODEC.encode(rng.integers(0, 256, CODEC.shape, dtype=np.uint8)))


def test_what_is_written_is_valid_whichever_release_wrote_it(film):
    stream = CODEC.unwrap(film)
    for data in (film, stream, CODEC.wrap_annex_b(stream)):
        assert CODEC.check(data).valid
    version = film.index(b"Lavf")
    assert CODEC.check(film[:version] + b"Lavf60.3.100\0"[:13] + film[version + 13 :]).valid


def test_a_damaged_container_is_no_valid_clip(film):
    """FFmpeg plays nearly all of these; outside the tags no bit may be another."""
    random.seed(0)
    tags = film.index(b"udta") - 4
    places = [*range(48), *range(film.index(b"moov") - 4, tags)]
    for place in random.sample(places, 150):
        broken = bytearray(film)
        broken[place] ^= 1 << random.randrange(8)
        verdict = CODEC.check(bytes(broken))
        assert not verdict.valid and verdict.why, place
    for broken in (film[:-1], film + b"\0", film + film, film[:100], b"", b"\0" * 64, film[8:]):
        assert not CODEC.check(broken).valid


def test_a_damaged_stream_is_placed(film):
    """Where its slice begins, counted in what was given, with parameter sets or without."""
    stream = CODEC.unwrap(film)
    for data in (stream[:-1], CODEC.wrap_annex_b(stream[:-1])):
        verdict = CODEC.check(data)
        assert not verdict.valid and "slice 3" in verdict.why
        assert verdict.where == data.rindex(b"\0\0\1") + 3
    verdict = CODEC.check(stream + b"\0\0\1" + stream[3:9])
    assert verdict.where == len(stream) + 3 and "data follows" in verdict.why


def test_more_than_the_slices_is_not_canonical(film):
    stream = CODEC.unwrap(film)
    assert not CODEC.check(CODEC.sets_bytes + CODEC.wrap_annex_b(stream)).valid
    assert not CODEC.check(stream + b"\0\0\1\6\1\2\3").valid  # an SEI unit at its end
