"""`check_clip`: the stream is judged, and so is every byte of the container around it."""

import random

import numpy as np
import pytest

from jpeglm.codecs.avc import AvcCodec, AvcConfig
from jpeglm.codecs.check import check_clip

pytest.importorskip("av")

CODEC = AvcCodec(AvcConfig(64, 48, 4, 8.0))


@pytest.fixture(scope="module")
def film():
    rng = np.random.default_rng(0)
    return CODEC.wrap(CODEC.encode(rng.integers(0, 256, CODEC.shape, dtype=np.uint8)))


def test_what_is_written_is_valid_whichever_release_wrote_it(film):
    stream = CODEC.unwrap(film)
    for data in (film, stream, CODEC.wrap_annex_b(stream)):
        assert check_clip(data, CODEC).valid
    version = film.index(b"Lavf")
    assert check_clip(film[:version] + b"Lavf60.3.100\0"[:13] + film[version + 13 :], CODEC).valid


def test_a_damaged_container_is_no_valid_clip(film):
    """FFmpeg plays nearly all of these; outside the tags no bit may be another."""
    random.seed(0)
    tags = film.index(b"udta") - 4
    places = [*range(48), *range(film.index(b"moov") - 4, tags)]
    for place in random.sample(places, 150):
        broken = bytearray(film)
        broken[place] ^= 1 << random.randrange(8)
        verdict = check_clip(bytes(broken), CODEC)
        assert not verdict.valid and verdict.reason, place
    for broken in (film[:-1], film + b"\0", film + film, film[:100], b"", b"\0" * 64, film[8:]):
        assert not check_clip(broken, CODEC).valid


def test_more_than_the_slices_is_not_canonical(film):
    stream = CODEC.unwrap(film)
    assert not check_clip(CODEC.sets_bytes + CODEC.wrap_annex_b(stream), CODEC).valid
    assert not check_clip(stream + b"\0\0\1\6\1\2\3", CODEC).valid  # an SEI unit at its end
