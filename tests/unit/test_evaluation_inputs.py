"""Which pictures are measured: all, of prepared shards the validation side, or what one asks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import Checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.data.arrays import load_images
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.evaluation.inputs import (
    ReferenceConfig,
    chosen_split,
    coders_of,
    held_out_share,
    held_out_streams,
    references,
)
from jpeglm.files import write_json
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.model import Model
from jpeglm.tokenizer import Tokenizer
from jpeglm.training.run import source

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


@pytest.fixture
def run(kinds, tmp_path):
    """Makes the folder of a run over some data, as far as its config.json tells."""

    def make(data, **more):
        record = {"settings": {}, "parameters": 1, "data": data, **more}
        (tmp_path / "run/checkpoints/step-000001").mkdir(parents=True, exist_ok=True)
        (tmp_path / "run/model").mkdir(exist_ok=True)
        write_json(tmp_path / "run/config.json", record)
        return tmp_path / "run"

    return make


def test_what_a_run_saw_is_known_from_everywhere(kinds, run, tmp_path, monkeypatch):
    """By whatever of its folders is given, from another folder, and where its data were prepared
    from."""
    _, plain, prepared = kinds
    for data in (plain, prepared):
        monkeypatch.chdir(data.parent)
        out = run(source(data.name))
        monkeypatch.chdir(tmp_path)
        for folder in (out, out / "model", out / "checkpoints/step-000001", Path("run/model/../")):
            assert held_out_share(plain, folder) == 0.05
            assert held_out_share(plain, None, Path("photos"), folder) == 0.05
            assert chosen_split(plain, None, folder) == "validation"
        monkeypatch.chdir(out / "model")
        assert held_out_share(plain, Path()) == 0.05
        assert chosen_split(plain, "all", Path()) == "all"
        assert held_out_share(plain.parent, out) is None
        assert chosen_split(plain, None, Path("photos")) == "all"


@pytest.mark.parametrize("data", [[], "path", {}, {"path": None}, {"path": 3}])
def test_a_record_of_no_data_is_none(kinds, run, data):
    assert held_out_share(kinds[1], run(data)) is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_no_picture_is_measured_that_was_trained_on(kinds, run, share):
    """Also where a run held out another share than is usual."""
    model, plain, _ = kinds
    out = run(source(plain), views={"validation": share})
    views = PrepareConfig(validation=share)
    config = ReferenceConfig()
    if not share:
        with pytest.raises(InputError, match="no validation pictures"):
            references(plain, (16, 16), config, out)
        with pytest.raises(InputError, match="no validation streams"):
            held_out_streams(plain, model, "validation", COUNT, out)
        return
    wanted = load_images(plain, 16, 16, views, "validation").keys
    assert 0 < len(wanted) < COUNT
    assert references(plain, (16, 16), config, None, out).keys == wanted
    kinds[0].tokenizer.save(out / "model")
    assert coders_of([out / "model"], [50], plain, config)[1].keys == wanted
    assert {row.key for row in held_out_streams(plain, model, "validation", COUNT, out)} == {
        *wanted
    }


def test_data_prepared_otherwise_than_by_content_say_no_side(kinds, run, tmp_path):
    plain = kinds[1]
    prepare(plain, tmp_path / "data", kinds[0].codec, PrepareConfig(split="train"), workers=1)
    assert held_out_share(plain, run(source(tmp_path / "data"))) is None
