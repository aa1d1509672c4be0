"""Holes through the command line: a model learns to fill them, then fills what a mask leaves."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jpeglm as package
from jpeglm.checkpoint import load_checkpoint
from jpeglm.checkpoint.shipped import _read
from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError
from jpeglm.data.arrange import arranger
from jpeglm.data.loader import load_tokens

pytestmark = pytest.mark.slow

pytest.importorskip("torch")
QUICK = (
    "--preset", "1m", "--batch-tokens", 512, "--warmup", 5, "--samples", 0, "--eval-images", 8,
    "--threads", 1,
)  # fmt: skip


@pytest.fixture(scope="module")
def home(jpeglm, tmp_path_factory):
    """Flat pictures of random colours: a hole's colour can be read off its surroundings."""
    folder = tmp_path_factory.mktemp("holes")
    rng = np.random.default_rng(0)
    (folder / "flat").mkdir()
    for number in range(300):
        colour = tuple(rng.integers(0, 256, 3).tolist())
        Image.new("RGB", (32, 32), colour).save(folder / "flat" / f"{number:03d}.png")
    jpeglm.told(
        *("prepare", "flat", "data", "--size", 32, "--subsampling", "4:4:4"),
        *("--restart-interval", 1, "--validation", 0.1),
        cwd=folder,
    )
    jpeglm.told("train-tokenizer", "data", "--vocab-size", 240, cwd=folder)
    words = ("train", "data", "--tokenizer", "tokenizer")
    jpeglm.told(*words, "--out", "plain", "--steps", 5, *QUICK, cwd=folder)
    jpeglm.told(
        *words, "--out", "run", "--steps", 400, "--fim", 0.7, "--eval-every", 400, *QUICK,
        cwd=folder,
    )  # fmt: skip
    photo = Image.new("RGB", (64, 64), (200, 60, 40))
    photo.save(folder / "photo.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 30:50] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


def test_a_hole_is_filled_by_what_is_around_it(home, jpeglm, monkeypatch):
    monkeypatch.chdir(home)
    model = package.load("run/model")
    codec = model.codec
    assert isinstance(codec, JpegCodec)
    colours, wrong = np.random.default_rng(1).integers(0, 256, (20, 3)), []
    for number, colour in enumerate(colours.astype(np.uint8)):
        picture = np.broadcast_to(colour, (32, 32, 3))
        mask = np.zeros((32, 32), np.uint8)
        mask[8:24, 8 * (number % 3) : 8 * (number % 3) + 16] = 255
        drawn = np.asarray(model.fill(picture, mask, seed=number).images[0], int)
        hole = mask > 0
        apart = np.abs(drawn - codec.decode(codec.encode(picture))).mean(2)
        assert (apart[~hole] == 0).all()
        others = [np.abs(drawn[hole] - other).mean() for other in colours]
        wrong.append((apart[hole].mean(), np.mean(others)))
    own, other = np.median(wrong, axis=0)
    assert own < 0.6 * other, wrong


def test_training_tells_what_holes_cost(home):
    """What the model's own logits say of their content behind what stays; addresses are free."""
    rows = [json.loads(line) for line in (home / "run/metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if "bits_per_hole" in row]
    assert len(told) >= 2 and told[-1]["bits_per_hole"] < 0.6 * told[0]["bits_per_hole"]
    model = package.load(home / "run", precision="float32")
    tokenizer = model.tokenizer
    plain = load_tokens(home / "data", tokenizer, "validation", limit=8)
    holed = plain.holed(arranger(tokenizer), tokenizer.hole)
    again = plain.holed(arranger(tokenizer), tokenizer.hole)
    assert (holed.tokens == again.tokens).all()
    bits = []
    for number in range(len(holed)):
        ids, own = holed.ids(number).astype(np.int64), plain.ids(number)
        assert tokenizer.decode_stream(ids) == tokenizer.decode_stream(own)
        begin = int(holed.text[number]) + 1
        assert ids[begin - 2] == tokenizer.hole and ids[begin - 1] > tokenizer.hole
        nats = nats_behind(model.engine, ids[:begin], ids[begin:])
        bits.append(nats[ids[begin:] < tokenizer.hole].sum() / np.log(2))
    best = min(told, key=lambda row: row["bits_per_image"])
    assert np.mean(bits) == pytest.approx(best["bits_per_hole"], rel=0.02)


def nats_behind(engine, prompt, ids):
    """−ln p of each id behind a prompt."""
    logits = np.concatenate(list(engine.read(np.concatenate([prompt, ids[:-1]]))))
    rows = logits[len(prompt) - 1 :].astype(np.float64)
    rows -= rows.max(1, keepdims=True)
    return np.log(np.exp(rows).sum(1)) - rows[np.arange(len(ids)), ids]


def test_mask_and_region_leave_a_folder_that_says_what_was_drawn(home, jpeglm):
    told = jpeglm.told(
        *("complete", "photo.png", "--mask", "mask.png", "--checkpoint", "run", "-n", 2),
        *("--out", "by-mask"),
        cwd=home,
    )
    assert told["settings"]["hole"] == [5, 6, 7, 9, 10, 11]
    other = jpeglm.told(
        *("complete", "photo.png", "--region", "30,20,20,20", "--checkpoint", "run", "-n", 2),
        *("--out", "by-region"),
        cwd=home,
    )
    names = {path.name for path in (home / "by-mask").iterdir()}
    assert names == {
        "completion-00.jpg", "completion-01.jpg", "original.jpg", "prompt.jpg", "sheet.png",
        "run.json",
    }  # fmt: skip
    for name in sorted(names - {"run.json", "sheet.png"}):
        file = (home / "by-mask" / name).read_bytes()
        assert file == (home / "by-region" / name).read_bytes()
    assert other["settings"] == told["settings"]
    given = np.asarray(Image.open(home / "by-mask" / "prompt.jpg"))
    assert (np.abs(given[9:23, 17:30].astype(int) - 128) < 3).all()
    assert (np.abs(given[0:8].astype(int) - (200, 60, 40)) < 25).all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--mask", "small.png"), "small.png has 32 × 32 pixels, its picture 64 × 64"),
        (("--mask", "black.png"), "black in all that is taken of the picture"),
        (("--mask", "white.png"), "white in every MCU"),
        (("--mask", "dots.png"), "white in every MCU"),
        (("--region", "0,0,-9,9"), "width and height are at least 1"),
        (("wide.png", "--region", "0,0,9,9"), "take all of it: --fit pad"),
        (("--mask", "none.png"), "there is no file none.png"),
        (("--mask", "mask.png", "--keep", 0.5), "give one of them"),
        (("--mask", "mask.png", "--region", "0,0,9,9"), "give one of them"),
        (("--region", "0,0,9"), "give 4 whole numbers"),
        (("--region", "a,b,c,d"), "give 4 whole numbers"),
        (("--region", "64,0,9,9"), "outside the picture"),
        (("--region", "0,0,9,9", "--no-grammar"), "under the grammar"),
        (("--region", "0,0,9,9", "--max-tokens", 3), "--max-tokens"),
        (("--region", "0,0,9,9", "--checkpoint", "plain"), "--fim 0.5"),
        (("--region", "0,0,9,9", "--text", "red"), "no text"),
    ],
)
def test_what_cannot_be_is_one_sentence(home, jpeglm, monkeypatch, words, told):
    monkeypatch.chdir(home)
    Image.new("L", (32, 32), 255).save("small.png")
    Image.new("L", (64, 64), 0).save("black.png")
    Image.new("L", (64, 64), 255).save("white.png")
    dots = np.zeros((64, 64), np.uint8)
    dots[::8, ::8] = 255
    Image.fromarray(dots).save("dots.png")
    Image.new("RGB", (128, 64)).save("wide.png")
    photo = () if words[0].endswith(".png") else ("photo.png",)
    where = () if "--checkpoint" in words else ("--checkpoint", "run")
    code, _, err = jpeglm("complete", *photo, *where, "--out", "never", *words)
    assert code == 1 and told in err and "Traceback" not in err and err.count("\n") == 1, err
    assert not Path("never").exists()


def test_the_mask_itself_is_never_written_over(home, jpeglm, monkeypatch):
    monkeypatch.chdir(home)
    Path("beside").mkdir()
    before = Path("mask.png").read_bytes()
    Path("beside/sheet.png").write_bytes(before)
    code, _, err = jpeglm(
        *("complete", "photo.png", "--mask", "beside/sheet.png", "--checkpoint", "run"),
        *("--out", "beside"),
    )
    assert code == 1 and "beside" in err
    assert Path("beside/sheet.png").read_bytes() == before


def test_a_model_that_is_there_learns_it_further(home, jpeglm, monkeypatch):
    monkeypatch.chdir(home)
    jpeglm.told(
        *("train", "data", "--init", "plain", "--out", "further", "--steps", 1, "--fim", 0.5),
        *("--learning-rate", 1e-9, *QUICK[2:]),
    )
    before, after = load_checkpoint(Path("plain/model")), load_checkpoint(Path("further/model"))
    assert after.tokenizer.vocab_size == before.tokenizer.vocab_size + 1 + 16
    assert after.tokenizer.with_holes().fingerprint == before.tokenizer.with_holes().fingerprint
    name = "model.embed_tokens.weight"
    size = before.tokenizer.vocab_size
    same = after.weights[name][:size].astype(int) - before.weights[name].astype(int)
    assert (np.abs(same) <= 1).mean() > 0.99  # bfloat16 as it lies there
    assert package.load("further").fill(Image.new("RGB", (32, 32)), _half(), seed=1).images
    with pytest.raises(InputError, match="has not learnt to fill"):
        package.load("plain").fill(Image.new("RGB", (32, 32)), _half())
    code, _, err = jpeglm(
        *("train", "data", "--init", "plain", "--out", "no", "--steps", 1, "--fim", 0.5),
        *("--packing", "chunks", *QUICK[2:]),
    )
    assert code == 1 and "packing pictures" in err


def _half():
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 255
    return mask


def test_the_best_weights_are_those_that_can_do_both(home, jpeglm, monkeypatch):
    """Weights that are better at whole pictures alone, as those of a model that fills no holes, are
    not what the run is for."""
    monkeypatch.chdir(home)
    words = ("train", "data", "--tokenizer", "tokenizer", "--out", "whole", "--steps", 150)
    exact = ("--precision", "float32")  # the same everywhere, nearly
    jpeglm.told(*words, *exact, *QUICK)
    told = jpeglm.told(
        *("train", "data", "--init", "whole", "--out", "both", "--steps", 20, "--fim", 1.0),
        *("--eval-every", 20, "--learning-rate", 0.003, *exact, *QUICK[2:]),
    )
    rows = [json.loads(line) for line in Path("both/metrics.jsonl").read_text().splitlines()]
    rows = {row["step"]: row for row in rows if "bits_per_hole" in row}
    bits = {step: row["bits_per_image"] for step, row in rows.items()}
    assert min(bits, key=bits.get) == 0 and rows[0]["bits_per_hole"] > rows[20]["bits_per_hole"]
    assert told["best_step"] > 0 and told["bits_per_image"] == bits[told["best_step"]]
    assert f"step {told['best_step']} (best, in model/)" in Path("both/README.md").read_text()


def test_samples_are_drawn_of_a_model_that_has_got_tokens_for_holes(home, jpeglm, monkeypatch):
    """The run's own tokenizer says which logits there are, not the one that it was given."""
    monkeypatch.chdir(home)
    jpeglm.told(
        *("train", "data", "--tokenizer", "tokenizer", "--out", "drawn", "--steps", 1),
        *("--fim", 1.0, *QUICK, "--samples", 2),
    )
    assert Image.open("drawn/samples/step-000001.png").getextrema() != ((0, 0),) * 3


def test_a_list_of_models_says_what_they_take(home):
    told = json.loads((home / "run/config.json").read_text())
    for name, takes in (("run", "a mask"), ("plain", "")):
        found = _read(home / name / "model")
        assert (found.takes, found.writes) == (takes, "pictures of 32 × 32")
    assert _read(home / "run/model").parameters == told["parameters"]


def test_data_without_restart_markers_cannot_teach_it(home, jpeglm, monkeypatch):
    monkeypatch.chdir(home)
    jpeglm.told("prepare", "flat", "joined", "--size", 32, "--validation", 0.1)
    jpeglm.told("train-tokenizer", "joined", "--out", "joined-tokenizer", "--vocab-size", 300)
    code, _, err = jpeglm(
        *("train", "joined", "--tokenizer", "joined-tokenizer", "--out", "no", "--steps", 1),
        *("--fim", 0.5, *QUICK),
    )
    assert code == 1 and "--restart-interval 1" in err and err.count("\n") == 1
    assert not Path("no").exists()


def test_pictures_that_merge_to_little_leave_room_to_draw(home, jpeglm, monkeypatch):
    """The grammar's shortest end has no merges: more tokens than such pictures have."""
    monkeypatch.chdir(home)
    Path("plainest").mkdir()
    for number in range(60):
        Image.new("RGB", (32, 32), (20 * (number % 12),) * 3).save(f"plainest/{number}.png")
    jpeglm.told("prepare", "plainest", "few", "--like", "run", "--validation", 0.3)
    jpeglm.told("train-tokenizer", "few", "--vocab-size", 300, "--out", "merged")
    words = ("train", "few", "--tokenizer", "merged", "--steps", 1, *QUICK)
    jpeglm.told(*words, "--out", "short")
    model = package.load("short")
    longest = int(load_tokens(Path("few"), model.tokenizer, "train").lengths.max())
    start = model.constraint.grammar.start()
    shortest = model.constraint.grammar.shortest(start) + 2
    assert -(-longest // 64) * 64 < shortest <= model.engine.max_length
    assert model.generate().images
    for length, fits in ((shortest, True), (shortest - 1, False)):
        jpeglm.told(*words, "--out", f"of-{length}", "--max-length", length)
        model = package.load(f"of-{length}")  # which has no room for a black picture
        assert len(model.score(np.zeros((32, 32, 3), np.uint8)).bits) < shortest
        if fits:
            assert model.generate().images
        else:
            with pytest.raises(InputError, match=f"context is {length}"):
                model.generate()


def test_a_budget_says_what_can_be_done_about_it(home):
    model = package.load(home / "run")
    context = model.engine.max_length
    for most in (None, context, 10 * context):
        with pytest.raises(InputError, match=f"context is {context}, .*keep less, or train one"):
            model.fill(_busy(), _half(), max_tokens=most)
    with pytest.raises(InputError, match=r"budget is 100, .*keep less, or raise --max-tokens"):
        model.fill(_busy(), _half(), max_tokens=100)


def _busy():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def test_the_arrangement_is_part_of_a_run(home, jpeglm, monkeypatch):
    """Going on with another share of holes would be another run."""
    monkeypatch.chdir(home)
    config = json.loads(Path("run/config.json").read_text())
    assert config["settings"]["fim"] == 0.7
    code, _, err = jpeglm(
        *("train", "data", "--tokenizer", "tokenizer", "--out", "run", "--steps", 400),
        *("--fim", 0.2, "--eval-every", 400, *QUICK),
    )
    assert code == 1 and "fim 0.7" in err
