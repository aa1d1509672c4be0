"""Errors that name a remedy name one that works: each is pasted, and goes on."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm import cli
from jpeglm.checkpoint import write_checkpoint
from jpeglm.codecs import JpegCodec, make_codec, open_codec
from jpeglm.config import MAX_SEED, InputError, JpegConfig, Sampling
from jpeglm.files import read_json, write_json
from jpeglm.folders import CHECKPOINT, RUN, TOKENIZER, ours
from jpeglm.generation.loading import load
from jpeglm.generation.model import Model
from jpeglm.generation.sampling import make_draw
from jpeglm.places import checkpoint_folder
from jpeglm.tokenizer import Tokenizer

from ..unit.conftest import random_llama

CODEC = JpegCodec(JpegConfig(32, 32, restart_interval=1, fit="pad"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    """A checkpoint and some pictures, in folders whose names want quotes."""
    folder = tmp_path_factory.mktemp("dead ends")
    streams = [CODEC.encode(picture) for picture in pictures]
    tokenizer = Tokenizer.train(streams, CODEC, vocab_size=280, n_classes=2)
    config, weights = random_llama(tokenizer.vocab_size, 400)
    write_checkpoint(folder / "my model", weights, config, tokenizer, "")
    (folder / "my pictures").mkdir()
    for number in range(24):
        picture = pictures[number % len(pictures)].resize((40 + number, 36))
        picture.save(folder / "my pictures" / f"{number}.png")
    return folder


@pytest.fixture
def jpeglm(monkeypatch, jpeglm, folder):
    """The command line, in the folder."""
    monkeypatch.chdir(folder)
    return jpeglm


def pasted(err, end="\n"):
    """The command that an error tells to run."""
    return shlex.split(err.split("run: jpeglm ")[1].split(end)[0].strip())


def test_data_that_do_not_fit_a_checkpoint(jpeglm):
    """The sentence names the key that differs with both values, and prepares as it should be."""
    words = ("--size", 32, "--crops", 2, "--validation", 0.3, "--workers", 1)
    assert jpeglm("prepare", "my pictures", "data", *words)[0] == 0
    measure = ("likelihood", "--checkpoint", "my model", "--limit", 2)
    code, _, err = jpeglm("evaluate", measure[0], "data", *measure[1:])
    assert code == 1 and "restart_interval is 0, not 1" in err
    assert "{" not in err and CODEC.fingerprint not in err and "quality" not in err
    command = pasted(err)
    assert command[:2] == ["prepare", "my pictures"]
    assert jpeglm(*command, "--workers", 1)[0] == 0
    made = read_json(Path(command[2], "dataset.json"))
    assert made["settings"]["crops"] == 2 and made["settings"]["validation"] == 0.3
    assert made["codec"] == CODEC.to_dict()
    assert jpeglm("evaluate", measure[0], command[2], *measure[1:])[0] == 0


@pytest.mark.parametrize("like", ["photos", "cifar10", "my model", "like", "tokenizer"])
def test_prepare_like(jpeglm, folder, like, tmp_path):
    """A shipped checkpoint, a folder, prepared data and a tokenizer say the codec's settings."""
    if like == "like":
        words = ("--size", "48x32", "--quality", 60, "--subsampling", "gray")
        assert jpeglm("prepare", "my pictures", "like", *words, "--workers", 1)[0] == 0
    if like == "tokenizer":
        Tokenizer.load(folder / "my model").save(folder / "tokenizer")
    home = checkpoint_folder(like) if like != "like" else Path("like")
    out = tmp_path / "out"
    assert jpeglm("prepare", "my pictures", out, "--like", like, "--workers", 1)[0] == 0
    assert open_codec(out).to_dict() == open_codec(home).to_dict()
    code, _, err = jpeglm("prepare", "my pictures", tmp_path / "b", "--like", like, "--quality", 3)
    assert code == 1 and "--quality" in err
    code, _, err = jpeglm("prepare", "my pictures", tmp_path / "b", "--like", like, "--size", 64)
    assert code == 1 and "--size" in err
    code, _, err = jpeglm(
        "prepare", "my pictures", tmp_path / "b", "--like", like, "--codec", "avc"
    )
    assert code == 1 and "jpeg" in err
    words = ("--like", like, "--codec", "jpeg", "--fit", "crop", "--workers", 1)
    assert jpeglm("prepare", "my pictures", tmp_path / "b", *words)[0] == 0


def test_prepare_like_nothing(jpeglm, tmp_path):
    for like in ("nowhere", "my pictures"):
        code, _, err = jpeglm("prepare", "my pictures", tmp_path / "out", "--like", like)
        assert code == 1 and like in err


def test_a_tokenizer_of_another_codec_says_how_to_prepare(jpeglm, tmp_path):
    words = ("prepare", "my pictures", tmp_path / "out", "--workers", 1, "--tokenizer", "my model")
    code, _, err = jpeglm(*words, "--size", 32)
    assert code == 1 and "restart_interval is 1, not 0" in err and "--like 'my model'" in err
    assert jpeglm(*words, "--like", "my model")[0] == 0


def test_train_finds_its_tokenizer(jpeglm, monkeypatch):
    """Learnt beside the run; several processes, which cannot learn one, say the command."""
    pytest.importorskip("torch")
    train = ["train", "my pictures", "--steps", 2, "--preset", "1m", "--eval-images", 2,
             "--samples", 0, "--threads", 1, "--out", "my runs/a"]  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = jpeglm(*train)
    assert code == 1
    monkeypatch.delenv("WORLD_SIZE")
    first, _ = err.split(", and then this command")
    assert jpeglm(*pasted(first), "--vocab-size", 300, "--size", 32)[0] == 0
    code, out, err = jpeglm(*train)
    assert code == 0, err
    assert "my runs/a/model " in out
    for place, kind in {"my runs/a": RUN, "my runs/a/model": CHECKPOINT,
                        "my runs/a/checkpoints/step-000002": CHECKPOINT,
                        "my runs/a-tokenizer": TOKENIZER}.items():  # fmt: skip
        assert ours(Path(place), kind) == sorted(p.name for p in Path(place).iterdir())
    # The run's folder is as good as the model in it, and a longer budget goes on.
    assert jpeglm("generate", "-n", 1, "--checkpoint", "my runs/a", "--out", "drawn")[0] == 0
    assert jpeglm("export", "--checkpoint", "my runs/a", "--out", "hf")[0] == 0
    longer = [3 if word == 2 and train[place - 1] == "--steps" else word
              for place, word in enumerate(train)]  # fmt: skip
    code, out, err = jpeglm(*longer, "--eval-every", 1, "--log-every", 1)
    assert code == 0 and "resuming from step 2" in err and "finished: 3 steps" in out, err
    code, out, err = jpeglm(*longer, "--warmup", 7)
    assert code == 1 and "warmup 100 (now 7)" in err


@pytest.mark.slow
def test_films_are_prepared_before_a_tokenizer_learns_from_them(jpeglm, folder):
    pytest.importorskip("av")
    from jpeglm.codecs.avc import AvcCodec, AvcConfig

    codec = AvcCodec(AvcConfig(64, 48, 30, 6.0))
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (30, 6, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    (folder / "my films").mkdir()
    (folder / "my films/film.mp4").write_bytes(codec.wrap(codec.encode(clip)))
    code, _, err = jpeglm("train-tokenizer", "my films")
    assert code == 1 and "holds films" in err
    command = pasted(err, ", and then")
    assert jpeglm(*command, "--workers", 1, "--split", "train")[0] == 0
    words = ("--out", "film tokenizer", "--alphabet", "bytes", "--vocab-size", 260)
    code, _, err = jpeglm("train-tokenizer", shlex.split(err)[-1], *words)
    assert code == 0, err


def test_nothing_there_is_not_called_untrained(jpeglm):
    code, _, err = jpeglm("train", "nowhere", "--steps", 1)
    assert code == 1 and "there is no file or folder nowhere" in err


def test_a_run_that_was_stopped_early_names_what_exists(jpeglm, folder):
    """Before its first evaluation a run has a checkpoint, but no model."""
    record = {"settings": {}, "parameters": 1}
    write_json(folder / "stopped/config.json", record)
    code, _, err = jpeglm("generate", "-n", 1, "--checkpoint", "stopped")
    assert code == 1 and "stopped before it wrote a model" in err
    saved = folder / "stopped/checkpoints/step-000007"
    saved.parent.mkdir()
    (folder / "stopped/checkpoints/step-000002").mkdir()
    (folder / "my model").rename(saved)
    try:
        assert checkpoint_folder(folder / "stopped") == saved
        assert jpeglm("generate", "-n", 1, "--checkpoint", "stopped")[0] == 0
    finally:
        saved.rename(folder / "my model")


def test_a_missing_module_says_what_works_from_a_clone(jpeglm, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        code, _, err = jpeglm("prepare", "my pictures", "x", "--size", 32)
    assert code == 1 and "pip install 'jpeglm[train]'" in err
    assert "clone" in err and "-c constraints.txt '.[train]'" in err
    monkeypatch.setitem(sys.modules, "av", None)
    Path("film.mp4").write_bytes(b"a film")
    code, _, err = jpeglm("complete", "film.mp4")
    assert code == 1 and "-c constraints.txt '.[video]'" in err


def test_as_a_module_and_its_version():
    done = subprocess.run(
        [sys.executable, "-m", "jpeglm", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr
    from jpeglm import __version__

    assert done.stdout == f"jpeglm {__version__}\n"


@pytest.mark.parametrize(
    "words",
    ["generate --help", "--version", "check --json " + "x.jpg " * 4000],
    ids=lambda words: words[:15],
)
def test_a_reader_that_goes_away(words):
    """`jpeglm … | head -1` is no error, whether anything was read or nothing."""
    for streams, reader in (("", "head -1"), ("2>&1", "true")):
        line = f"{shlex.quote(sys.executable)} -m jpeglm {words} {streams} | {reader}"
        script = f"{line} >/dev/null; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        assert done.returncode in ((0, 1) if "check" in words else (0,)) and not done.stderr
        assert done.returncode == 0 or reader == "head -1"


BAD = {
    "seed": ("--seed", MAX_SEED + 1), "huge seed": ("--seed", 10**30), "minus": ("--seed", -1),
    "inf": ("--temperature", "inf"), "nan": ("--temperature", "nan"), "top p": ("--top-p", "nan"),
    "guidance": ("--guidance", "inf"), "guidance nan": ("--guidance", "nan"),
    "guidance far": ("--guidance", "1e30", "--label", 1), "n": ("-n", 10**30),
    "device": ("--device", "cuda:7"), "device mps": ("--device", "mps"),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["generate", "complete"])
@pytest.mark.parametrize("case", BAD)
def test_options_out_of_bounds(jpeglm, verb, case):
    photo = ("my pictures/0.png",) if verb == "complete" else ()
    words = (verb, *photo, "--checkpoint", "my model", "--out", "never", "--json", *BAD[case])
    code, out, err = jpeglm(*words)
    assert code in (1, 2) and not out
    lines = [line for line in err.splitlines() if line.startswith("jpeglm: ")]
    assert len(lines) == 1 and BAD[case][0].strip("-") in lines[0]
    assert not Path("never").exists()


FLOATS = {
    "train": ("epochs", "minutes", "learning-rate", "min-lr-ratio", "weight-decay", "beta1",
              "beta2", "clip", "class-dropout", "caption-dropout", "fim", "ema"),
    "train-vae": ("minutes", "learning-rate", "weight-decay", "clip", "beta", "validation"),
    "train-vqvae": ("minutes", "learning-rate", "weight-decay", "clip", "beta", "ema",
                    "restart-below", "validation"),
    "complete": ("keep", "start", "temperature", "top-p", "min-p", "guidance"),
    "prepare": ("validation", "min-scale", "fps", "balance"),
    "evaluate continuation": ("temperature", "top-p", "min-p"),
    "evaluate validity": ("temperature", "top-p", "min-p"),
    "evaluate longtail": ("keep",),
    "evaluate completion": ("ratios",),
}  # fmt: skip


def test_no_option_takes_what_is_no_number(jpeglm):
    """Every option with a decimal number is listed here, and refuses NaN and infinity."""
    from typing import get_args, get_type_hints

    found = {}
    rooms = {"": cli.data, "evaluate ": cli.evaluation, " ": cli.training, "  ": cli.generation}
    for prefix, room in rooms.items():
        registered = room.evaluate if prefix == "evaluate " else room.verbs
        for command in registered.registered_commands:
            verb = command.callback
            name = f"{prefix}{command.name or verb.__name__}".strip()
            hints = get_type_hints(verb)
            floats = [
                o.replace("_", "-") for o, hint in hints.items() if float in (hint, *get_args(hint))
            ]
            found |= {name: floats} if floats else {}
            extras = [
                type(extra).__name__
                for hint in get_type_hints(verb, include_extras=True).values()
                for extra in getattr(hint, "__metadata__", ())
            ]
            needed = ["x"] * extras.count("ArgumentInfo")
            for option in floats:
                for value in ("nan", "1e999"):
                    code, out, err = jpeglm(*name.split(), *needed, f"--{option}={value}")
                    assert code == 2 and not out and f"--{option}" in err, (name, option, value)
    expected = {name: sorted(options) for name, options in FLOATS.items()}
    del expected["evaluate completion"]  # a list of shares, which is read as text
    assert {name: sorted(options) for name, options in found.items() if name != "generate"} == (
        expected
    )
    for ratios in ("nan", "0.5,inf", "-1"):
        code, _, err = jpeglm("evaluate", "completion", "x", "--ratios", ratios)
        assert code == 1 and "--ratios" in err


@pytest.mark.parametrize("verb", ["train", "train-vae", "train-vqvae", "prepare"])
def test_seeds_of_64_bits(jpeglm, verb):
    for seed in (MAX_SEED + 1, 18446744073709551616, 10**40):
        code, _, err = jpeglm(verb, "my pictures", *["x"] * (verb == "prepare"), "--seed", seed)
        assert code == 2 and "--seed" in err


def test_the_largest_seeds_and_numbers_work(jpeglm, tmp_path):
    words = ("generate", "-n", 1, "--checkpoint", "my model", "--out", tmp_path / "out")
    for more in (("--seed", MAX_SEED), ("--temperature", "1e-300"), ("--temperature", "1e300"),
                 ("--label", 1, "--guidance", "1e6"), ("--top-k", 10**30),
                 ("--max-tokens", MAX_SEED),
                 ("--device", "cpu")):  # fmt: skip
        code, out, err = jpeglm(*words, "--json", *more)
        assert code == 0, err
        assert np.isfinite(json.loads(out)["bits"]).all()


def test_a_start_beyond_the_film(jpeglm, folder):
    pytest.importorskip("av")
    from jpeglm.codecs.avc import AvcCodec, AvcConfig

    codec = AvcCodec(AvcConfig(32, 32, 3))
    rng = np.random.default_rng(0)
    film = codec.wrap(codec.encode(rng.integers(0, 256, codec.shape, np.uint8)))
    (folder / "film.mp4").write_bytes(film)
    words = ("complete", "film.mp4", "--checkpoint", "clips", "--out", "never")
    for start in (1e300, 7):
        code, _, err = jpeglm(*words, "--start", start)
        assert code == 1 and "film.mp4" in err


# The API


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return load(folder / "my model")


def test_media_of_every_kind_give_one_stream(folder, model, tmp_path):
    picture = Image.open(folder / "my pictures/3.png").convert("RGB")
    picture.save(tmp_path / "same.png")
    array = np.asarray(picture)
    stream = CODEC.encode(picture)
    path = tmp_path / "same.png"
    for media in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), array,
                  array[:, ::-1][:, ::-1], Image.open(path), picture.convert("RGBA")):  # fmt: skip
        assert CODEC.encode(media) == stream
        assert model.complete(media, 0.5).original == stream
    grey = np.asarray(picture.convert("L"))
    assert CODEC.encode(grey) == CODEC.encode(picture.convert("L"))
    clear = np.dstack([array, np.zeros(array.shape[:2], np.uint8)])
    assert CODEC.encode(clear) == CODEC.encode(np.full_like(array, 255))


def test_a_turned_photo_is_upright_however_it_comes(tmp_path):
    picture = Image.fromarray(np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    turned = CODEC.encode(picture.transpose(Image.Transpose.ROTATE_270))
    with Image.open(tmp_path / "turned.png") as opened:
        assert CODEC.encode(opened) == CODEC.encode(tmp_path / "turned.png") == turned


NO_MEDIA = {
    "text": "no such file.jpg", "bytes": b"hello", "nothing": b"", "none": None, "number": 3,
    "list": [[1, 2], [3, 4]], "nan": np.full((8, 8, 3), np.nan), "floats": np.zeros((8, 8, 3)),
    "int64": np.zeros((8, 8, 3), np.int64), "no pixels": np.zeros((0, 8, 3), np.uint8),
    "two channels": np.zeros((8, 8, 2), np.uint8), "one row": np.zeros(8, np.uint8),
    "batch": np.zeros((2, 8, 8, 3), np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_MEDIA)
def test_what_is_no_picture_is_refused(case, model):
    for call in (CODEC.encode, model.complete):
        with pytest.raises(InputError):
            call(NO_MEDIA[case])


def test_what_is_no_clip_is_refused():
    pytest.importorskip("av")
    codec = make_codec({"codec": "avc", "width": 32, "height": 32, "frames": 2})
    for media in (*NO_MEDIA.values(), np.zeros((2, 32, 32, 3)), np.zeros((3, 32, 32, 3), np.uint8)):
        with pytest.raises(InputError):
            codec.encode(media)
    for stream in (b"", b"hello", b"\0\0\1\x65" + b"\xff" * 40):
        with pytest.raises(InputError):
            codec.decode(stream)
        assert codec.show(stream).shape == (2, 32, 32, 3)
    clip = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    stream = codec.encode(clip)
    assert codec.decode(stream).shape == clip.shape
    for cut in range(0, len(stream), 7):
        with pytest.raises(InputError):
            codec.decode(stream[:cut])


def test_what_is_no_stream_is_refused(pictures):
    stream = CODEC.encode(pictures[0])
    assert CODEC.decode(stream).size == (32, 32)
    damaged = [b"", b"hello", stream[:-1], stream + b"\0", CODEC.wrap(stream), stream[:100],
               JpegCodec(JpegConfig(32, 32)).encode(pictures[0])]  # fmt: skip
    for junk in damaged:
        with pytest.raises(InputError):
            CODEC.decode(junk)
        assert CODEC.show(junk).size == (32, 32)


@pytest.mark.parametrize(
    "words",
    [{"seed": -1}, {"seed": MAX_SEED + 1}, {"seed": 1.5}, {"seed": float("nan")}, {"seed": None},
     {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_p": float("nan")},
     {"guidance": float("nan"), "label": 0}, {"guidance": float("inf"), "label": 0},
     {"label": -1}, {"label": 2}, {"label": "ship"}, {"n": 0}, {"n": 1.5}, {"batch": True},
     {"batch": 0}, {"max_tokens": -1}],
    ids=str,
)  # fmt: skip
def test_arguments_that_make_no_sense(model, words, pictures):
    with pytest.raises(InputError):
        model.generate(**words)
    with pytest.raises(InputError):
        model.complete(pictures[0], **words)


def test_shares_and_units_that_make_no_sense(model, pictures):
    for keep in (float("nan"), float("inf"), -0.1, 1.1):
        with pytest.raises(InputError, match="keep"):
            model.complete(pictures[0], keep)
    for units in (-1, 5, 1.5):
        with pytest.raises(InputError, match=r"kept|whole"):
            model.complete(pictures[0], units=units)


def test_numbers_of_numpy_are_numbers(model):
    plain = model.generate(1, seed=7).streams
    assert model.generate(1, seed=np.int64(7)).streams == plain
    assert make_draw(Sampling(), np.uint8(7)) == make_draw(Sampling(), 7)


def test_ids_that_no_token_has(model):
    tokenizer = model.tokenizer
    for ids in ([-1], [tokenizer.vocab_size], [0, 1, 10**9], np.array([-5], np.int64)):
        with pytest.raises(InputError, match="unknown"):
            tokenizer.decode(ids)
        with pytest.raises(InputError, match="unknown"):
            tokenizer.decode_stream(ids)
    assert len(tokenizer.decode(np.arange(tokenizer.bos, tokenizer.vocab_size))) == 0
    assert len(tokenizer.decode([])) == 0


def test_devices_that_are_not_there(folder):
    for device in ("cuda:7", "mps", "abacus"):
        with pytest.raises(InputError, match=device.split(":")[0]):
            load(folder / "my model", device=device)
    pytest.importorskip("torch")
    with pytest.raises(InputError, match="abacus"):
        load(folder / "my model", engine="torch", device="abacus")
