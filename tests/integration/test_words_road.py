"""Words through the command line: captioned pictures, a tokenizer, a model, pictures to a text."""

import json

import numpy as np
import pytest
from PIL import Image

import jpeglm as package
from jpeglm.checkpoint.shipped import _read
from jpeglm.codecs.check import check_file
from jpeglm.config import InputError
from jpeglm.data.loader import load_tokens
from jpeglm.data.open import open_data
from jpeglm.tokenizer import Tokenizer

pytestmark = pytest.mark.slow

pytest.importorskip("torch")
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}
CAPTION = "a {} wall ❤️"


def other(colour):
    return next(name for name in COLOURS if name != colour)


def wall(colour, rng):
    """A flat picture, of one of many shades."""
    shade = np.add(COLOURS[colour], rng.integers(-25, 25, 3))
    return Image.new("RGB", (16, 16), tuple(shade.tolist()))


@pytest.fixture(scope="module")
def home(jpeglm, tmp_path_factory):
    """Walls of two colours, some without a caption, through prepare, train-tokenizer and train."""
    folder = tmp_path_factory.mktemp("words")
    rng = np.random.default_rng(0)
    (folder / "walls").mkdir()
    rows = []
    for number in range(400):
        colour = list(COLOURS)[number % 2]
        name = f"{number:03d}-{colour}.png"
        wall(colour, rng).save(folder / "walls" / name)
        if number % 10 != 9:
            rows.append({"file_name": name, "text": CAPTION.format(colour)})
    rows = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "walls" / "metadata.jsonl").write_text(rows)
    told = {
        "prepare": jpeglm.told(
            *("prepare", "walls", "data", "--size", 16, "--validation", 0.2, "--labels", "none"),
            cwd=folder,
        ),
        "train-tokenizer": jpeglm.told(
            *("train-tokenizer", "data", "--vocab-size", 300, "--text-vocab-size", 280), cwd=folder
        ),
        "train": jpeglm.told(
            *("train", "data", "--tokenizer", "tokenizer", "--out", "run", "--steps", 80),
            *("--preset", "1m", "--batch-tokens", 512, "--eval-every", 80, "--warmup", 5),
            *("--samples", 2, "--eval-images", 24, "--threads", 1, "--caption-dropout", 0.2),
            cwd=folder,
        ),
    }
    return folder, told


def test_what_is_told_on_the_way(home):
    folder, told = home
    assert told["prepare"]["captions"] == {
        "pictures": 360, "without": 40, "from": ["metadata.jsonl"]
    }  # fmt: skip
    tokenizer = Tokenizer.load(folder / "tokenizer")
    size = tokenizer.text.size  # at most 280: so few captions have no more pairs to merge
    assert 256 < size < 280 and told["train-tokenizer"]["text_vocab_size"] == size
    data = json.loads((folder / "run" / "config.json").read_text())["data"]
    assert data["captions"] == np.count_nonzero(load_tokens(folder / "data", tokenizer).text)
    assert data["captions_cut"] == 0
    assert list((folder / "run" / "samples").glob("*.png"))
    assert _read(folder / "run" / "model").takes == "a text"


def test_the_right_caption_costs_fewer_bits(home):
    folder, _ = home
    model = package.load(folder / "run" / "model")
    bits = {"right": 0.0, "wrong": 0.0, "none": 0.0}
    rng = np.random.default_rng(1)  # other shades than those of training
    for colour in [*COLOURS] * 8:
        image = wall(colour, rng)
        texts = {"right": colour, "wrong": other(colour)}
        for name in bits:
            text = CAPTION.format(texts[name]) if name in texts else None
            score = model.score(image, text=text)
            bits[name] += score.bits.sum()
            assert len(score.bits) == len(model.score(image).bits)
    assert bits["right"] < bits["none"] < bits["wrong"]


def mean_colour(path):
    with Image.open(path) as image:
        red, _, blue = np.asarray(image.convert("RGB"), np.float64).mean((0, 1))
    return "red" if red > blue else "blue"


@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_pictures_to_a_text(jpeglm, home, engine):
    folder, _ = home
    hits = 0
    for colour in COLOURS:
        out = folder / f"{colour}-{engine}"
        result = jpeglm.told(
            *("generate", "--text", CAPTION.format(colour), "-n", 6, "--checkpoint", "run/model"),
            *("--guidance", 1.5, "--engine", engine, "--out", out, "--max-tokens", 150),
            cwd=folder,
        )
        assert result["settings"]["text"] == CAPTION.format(colour)
        assert json.loads((out / "run.json").read_text())["settings"] == result["settings"]
        for file in sorted(out.glob("*.jpg")):
            assert check_file(file.read_bytes(), {}).valid
            hits += mean_colour(file) == colour
    assert hits >= 10, "of 12"


def test_completions_to_a_text(jpeglm, home):
    folder, _ = home
    words = ("complete", "walls/000-red.png", "--checkpoint", "run/model", "--keep", 0, "-n", 2)
    result = jpeglm.told(*words, "--text", CAPTION.format("blue"), "--out", "bluer", cwd=folder)
    assert result["settings"]["text"] == CAPTION.format("blue")
    model = package.load(folder / "run" / "model")
    image = folder / "walls" / "000-red.png"
    own = model.complete(image, 0, 2, text=CAPTION.format("blue"))
    assert [one.mode for one in own.images] == ["RGB"] * 2
    steps = list(model.iterate(image, 0, 1, text=CAPTION.format("blue"), seed=0))
    assert (steps[-1].ids == own.ids[0]).all()
    plain = model.complete(image, 0, 2)
    assert any((a.tolist() != b.tolist()) for a, b in zip(own.ids, plain.ids))


def test_likelihood_is_told_the_captions(jpeglm, home):
    folder, _ = home
    words = ("evaluate", "likelihood", "data", "--checkpoint", "run/model")
    told = jpeglm.told(*words, cwd=folder)
    silent = jpeglm.told(*words, "--no-captions", cwd=folder)
    assert told["captions"] > 10 and told["captions_cut"] == silent["captions"] == 0
    bits = [one["coders"]["model"]["bits_per_image"] for one in (told, silent)]
    assert bits[0] < bits[1]
    measured = [
        json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    *_, held_out = (row for row in measured if "bits_per_image" in row)
    # Training measured the same pictures in float32, some 24 of them.
    assert held_out["bits_per_image"] == pytest.approx(bits[0], rel=0.1)


def test_a_model_of_words_tells_captions_apart(jpeglm, home):
    folder, _ = home
    words = ("evaluate", "classify", "data", "--checkpoint", "run/model")
    told = jpeglm.told(*words, "--out", "told-apart", cwd=folder)
    assert told["answers"] == "captions" and told["among"] == 2 and told["by_chance"] == 0.5
    assert told["accuracy"] > 0.9 and told["interval"][0] <= told["accuracy"] <= told["interval"][1]
    assert told["bits"]["right"] < told["bits"]["best_other"]
    held_out = list(open_data(folder / "data").streams("validation"))
    assert told["pictures"] + told["left_out"] == len(held_out)
    assert told["left_out"] > 0 and told["files"] == []
    code, _, err = jpeglm(*words, "--labels", cwd=folder)
    assert code == 1 and "no classes" in err and err.count("\n") == 1


def test_texts_that_cannot_be(jpeglm, home):
    folder, _ = home
    draw = ("generate", "-n", 1, "--checkpoint", "run/model", "--out", "odd")
    for text in ("", "  ", "قلب", "👩🏽‍🚀 x", "</s><s>\U000f0000", "\n"):
        ended = jpeglm(*draw, "--text", text, cwd=folder)
        assert ended.code == 0, ended.err
    nothing = package.load(folder / "run" / "model")
    assert (nothing.generate(text=" ").ids[0] == nothing.generate().ids[0]).all()
    ended = jpeglm(*draw, "--text", "long " * 400, cwd=folder)
    assert ended.code == 1 and ended.err.count("\n") == 1 and "shorten it" in ended.err
    ended = jpeglm(*draw, "--text", "caf\udce9", cwd=folder)
    assert ended.code == 1 and ended.err.count("\n") == 1 and "is not UTF-8" in ended.err
    ended = jpeglm("generate", "-n", 1, "--out", "odd", "--text", "a heart", cwd=folder)
    assert ended.code == 1 and "has no text" in ended.err
    ended = jpeglm(*draw, "--guidance", 2, cwd=folder)
    assert ended.code == 1 and "--text" in ended.err


def test_exported_checkpoints_carry_it(jpeglm, home):
    from transformers import AutoTokenizer

    folder, _ = home
    jpeglm.told("export", "--checkpoint", "run/model", "--out", "hf", cwd=folder)
    ours = package.load(folder / "hf").tokenizer
    theirs = AutoTokenizer.from_pretrained(folder / "hf", local_files_only=True)
    text = CAPTION.format("red")
    assert theirs(text)["input_ids"] == ours.encode_text(text).tolist()


def test_captions_that_have_no_room_are_cut_and_counted(jpeglm, home):
    folder, _ = home
    tokenizer = Tokenizer.load(folder / "tokenizer")
    tokens = load_tokens(folder / "data", tokenizer)
    longest = int((tokens.lengths - tokens.text).max())
    ended = jpeglm(
        *("train", "data", "--tokenizer", "tokenizer", "--out", "cut", "--steps", 2, "--samples"),
        *(0, "--preset", "1m", "--max-length", longest + 1, "--threads", 1, "--eval-images", 4),
        cwd=folder,
    )
    assert ended.code == 0, ended.err
    data = json.loads((folder / "cut" / "config.json").read_text())["data"]
    assert 0 < data["captions_cut"] <= data["captions"] and data["too_long"] == 0
    assert f"{data['captions_cut']} of them cut to fit" in ended.err
    result = jpeglm.told("evaluate", "likelihood", "data", "--checkpoint", "cut/model", cwd=folder)
    assert result["captions_cut"] > 0


def test_token_shards_carry_it(jpeglm, home):
    folder, _ = home
    jpeglm.told(
        *("prepare", "walls", "tokens", "--size", 16, "--validation", 0.2, "--labels", "none"),
        *("--tokenizer", "tokenizer"),
        cwd=folder,
    )
    tokenizer = Tokenizer.load(folder / "tokenizer")
    for split in ("train", "validation"):
        made = load_tokens(folder / "tokens", None, split)
        read = load_tokens(folder / "data", tokenizer, split)
        assert len(made) == len(read) and (made.text == read.text).all() and made.text.any()
        assert all((made.ids(row) == read.ids(row)).all() for row in range(len(made)))
    first = made.ids(0)[: made.text[0]]
    assert tokenizer.decode_text(first).startswith("a ")


def test_a_tokenizer_without_text_leaves_them_out_and_says_so(jpeglm, home):
    folder, _ = home
    jpeglm.told("train-tokenizer", "data", "--vocab-size", 300, "--text-vocab-size", 0,
                "--out", "mute", cwd=folder)  # fmt: skip
    ended = jpeglm("train", "data", "--tokenizer", "mute", "--out", "mute-run", "--steps", 1,
                   "--preset", "1m", "--samples", 0, "--eval-images", 0, cwd=folder)  # fmt: skip
    assert ended.code == 0 and "no text: they are left out" in ended.err
    assert not load_tokens(folder / "data", Tokenizer.load(folder / "mute")).text.any()


def test_model_refuses_what_the_tokenizer_refuses(home):
    model = package.load()
    with pytest.raises(InputError, match="has no text"):
        model.score(Image.new("RGB", (64, 64)), text="a heart")
