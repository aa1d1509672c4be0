"""Which pictures are measured: all, of prepared shards the validation side, or what one asks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import Checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.data.prepare import prepare
from jpeglm.evaluation.inputs import (
    ReferenceConfig,
    chosen_split,
    held_out_streams,
    references,
)
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.model import Model
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama

COUNT = 40


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A model, a folder of pictures, and the same prepared."""
    plain = tmp_path_factory.mktemp("plain")
    pixels = np.random.default_rng(3).integers(0, 255, (COUNT, 16, 16, 3), np.uint8)
    for number, one in enumerate(pixels):
        Image.fromarray(one).save(plain / f"{number:02d}.png")
    codec = JpegCodec(JpegConfig(16, 16))
    tokenizer = Tokenizer.train([codec.encode(Image.fromarray(pixels[0]))], codec, None, 300)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 900), threads=1)
    prepared = plain.parent / f"{plain.name}-prepared"
    prepare(plain, prepared, codec, workers=1)
    return Model(Checkpoint(Path(), {}, tokenizer, {}), engine), plain, prepared


@pytest.mark.parametrize("split", [None, "validation", "train", "all"])
def test_sides_of_pictures_are_those_of_prepared_shards(kinds, split):
    model, plain, prepared = kinds
    assert chosen_split(plain, None) == "all" and chosen_split(prepared, None) == "validation"
    found = {}
    for data in (plain, prepared):
        side = chosen_split(data, split)
        rows = held_out_streams(data, model, side, 2 * COUNT)
        found[data] = {row.stream for row in rows}
        assert len(references(data, (16, 16), ReferenceConfig(split=split)).pixels) == len(rows)
    if split is None:
        assert len(found[plain]) == COUNT and 0 < len(found[prepared]) < COUNT / 2
        assert found[prepared] < found[plain]
    else:
        assert found[plain] == found[prepared]


def test_an_unknown_side_is_refused(kinds):
    with pytest.raises(InputError, match="'nope'; choose one of train, validation, all"):
        chosen_split(kinds[1], "nope")
