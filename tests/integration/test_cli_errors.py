"""What people do wrong: one line on stderr that names the file, exit code 1; 2 for a wrong line."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from jpeglm.checkpoint import write_checkpoint
from jpeglm.cli import fail
from jpeglm.codecs import JpegCodec
from jpeglm.config import JpegConfig
from jpeglm.tokenizer import Tokenizer

from ..unit.conftest import random_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    """A small checkpoint and every kind of bad picture."""
    folder = tmp_path_factory.mktemp("errors")
    codec = JpegCodec(JpegConfig(32, 32))
    streams = [codec.encode(picture) for picture in pictures]
    tokenizer = Tokenizer.train(streams, codec, vocab_size=280)
    config, weights = random_llama(tokenizer.vocab_size, 400)
    write_checkpoint(folder / "model", weights, config, tokenizer, "")
    pictures[0].save(folder / "photo.png")
    (folder / "text.jpg").write_text("This is a shopping list: eggs, milk, bread.\n")
    (folder / "nothing.jpg").write_bytes(b"")
    whole = io.BytesIO()
    pictures[0].save(whole, "JPEG", quality=90)
    (folder / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    # 20,000 x 12,000 pixels of white: 240 megapixels in a few kilobytes.
    Image.new("1", (20_000, 12_000), 1).save(folder / "bomb.png")
    (folder / "empty").mkdir()
    shutil.copytree(folder / "model", folder / "lacking")
    (folder / "lacking" / "model.safetensors").unlink()
    return folder


MODEL = ("--checkpoint", "model")
WRONG = {
    "no such file": (("complete", "gone.jpg", *MODEL), 1, "gone.jpg"),
    "text": (("complete", "text.jpg", *MODEL), 1, "text.jpg"),
    "no bytes": (("complete", "nothing.jpg", *MODEL), 1, "nothing.jpg"),
    "truncated": (("complete", "cut.jpg", *MODEL), 1, "cut.jpg"),
    "too large": (("complete", "bomb.png", *MODEL), 1, "bomb.png"),
    "a folder": (("complete", "empty", *MODEL), 1, "empty"),
    "empty folder": (("prepare", "empty", "out"), 1, "empty"),
    "no source": (("prepare", "gone", "out"), 1, "gone"),
    "no checkpoint": (("generate", "--checkpoint", "gone"), 1, "gone"),
    "file of checkpoint": (("generate", "--checkpoint", "lacking"), 1, "model.safetensors"),
    "keep": (("complete", "photo.png", "--keep", "1.5", *MODEL), 2, "--keep"),
    "no number": (("complete", "photo.png", "-n", "many", *MODEL), 2, "-n"),
    "no option": (("complete", "photo.png", "--hot", *MODEL), 2, "--hot"),
    "no verb": (("paint",), 2, "paint"),
    "empty folder's name": (("complete", "photo.png", "--out", "", *MODEL), 2, "--out is empty"),
    "empty name after =": (("complete", "photo.png", "--out=", *MODEL), 2, "--out is empty"),
    "empty photo": (("complete", "", *MODEL), 2, "an argument is empty"),
    "empty argument behind an option": (("generate", "--text=a", ""), 2, "an argument is empty"),
    "one process": (("train", ".", "--strategy", "fsdp", "--steps", 1), 1, "several processes"),
    "huge rate": (("train-vae", ".", "--steps", 1, "--learning-rate", 1e300), 2, "--learning-rate"),
    "empty page": (("inspect", "photo.png", "--html", "", *MODEL), 2, "--html is empty"),
    "engine": (("generate", "--engine", "abacus", *MODEL), 1, "abacus"),
    "label": (("generate", "--label", "3", *MODEL), 1, "class"),
    "guidance": (("generate", "--guidance", "3", *MODEL), 1, "guidance needs a class"),
    "budget": (("generate", "--max-tokens", "5", *MODEL), 1, "5"),
    "size": (("prepare", ".", "out", "--size", "60"), 1, "60"),
    "preset of prepare": (("prepare", ".", "out", "--preset", "best"), 1, "best"),
    "train without data": (("train", "gone", "--tokenizer", "model", "--steps", "1"), 1, "gone"),
    "train preset": (("train", ".", "--tokenizer", "model", "--preset", "9t"), 1, "9t"),
    "train model": (("train", ".", "--model", "deep"), 1, "KEY=VALUE"),
    "two sizes": (("train", ".", "--init", "model", "--preset", "1m"), 1, "leave one out"),
    "init": (("train", ".", "--init", "lacking"), 1, "model.safetensors"),
    "export": (("export", "--checkpoint", "model", "--out", "hf", "--to", "onnx"), 1, "onnx"),
    "check": (("check", "gone.jpg"), 1, None),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_line_and_an_exit_code(jpeglm, folder, case):
    arguments, code, words = WRONG[case]
    result = jpeglm(*arguments, cwd=folder)
    assert result.code == code, result.out + result.err
    if words is None:
        assert "gone.jpg" in result.out
        return
    lines = [line for line in result.err.splitlines() if line.startswith("jpeglm: ")]
    assert len(lines) == 1 and result.err.splitlines()[-1] == lines[0]
    assert words in lines[0] and not result.out


def test_json_stands_alone_on_stdout(jpeglm, folder):
    told = jpeglm.told("complete", "photo.png", "-n", 2, *MODEL, cwd=folder)
    assert told["pictures"] == 2 and told["tokens_per_second"] > 0


def test_bad_pictures_do_not_stop_a_folder(jpeglm, folder, tmp_path):
    out = tmp_path / "out"
    told = jpeglm.told("prepare", ".", out, "--size", "32", "--validation", 0, cwd=folder)
    assert told["rejected"] == 4
    rows = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert {row["name"] for row in rows} == {"text.jpg", "nothing.jpg", "cut.jpg", "bomb.png"}
    assert all(row["reason"] for row in rows)


def test_an_output_that_cannot_be_written(jpeglm, folder):
    (folder / "taken").write_text("a file")
    result = jpeglm("generate", "-n", 1, "--out", "taken", *MODEL, cwd=folder)
    assert result.code == 1 and "taken" in result.err
    assert (folder / "taken").read_text() == "a file"


@pytest.mark.parametrize(
    "verb", ["", "check", "prepare", "train-tokenizer", "train", "generate", "complete", "evaluate"]
)
def test_help_teaches(jpeglm, verb):
    result = jpeglm(*verb.split(), "--help")
    assert result.code == 0 and "Usage: jpeglm" in result.out and not result.err


@pytest.mark.parametrize(("option", "number"), [("--batch", 10**9), ("--channels", 10**6)])
def test_what_no_memory_holds_is_one_line(jpeglm, tmp_path, option, number):
    """Of numpy's arrays and of torch's."""
    pytest.importorskip("torch")
    (tmp_path / "photos").mkdir()
    for level in range(16):
        Image.new("RGB", (16, 16), (16 * level, 0, 0)).save(tmp_path / f"photos/{level}.png")
    words = ("--size", 16, "--steps", 1, "--validation", 0.5, "--threads", 1, option, number)
    ended = jpeglm("train-vae", tmp_path / "photos", "--out", tmp_path / "run", *words)
    assert ended.code == 1 and "Traceback" not in ended.err, ended.err
    assert ended.err.splitlines()[-1].startswith("jpeglm: the memory does not suffice (")


def test_an_end_from_within_keeps_its_code(jpeglm, folder, monkeypatch):
    """What a library ends with is no success."""

    def end(*_, **__):
        raise SystemExit(3)

    monkeypatch.setattr("jpeglm.generation.loading.load", end)
    assert jpeglm("generate", *MODEL, cwd=folder).code == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("words", ["check --json photo.png", "--version"])
def test_a_result_that_finds_no_room_is_no_success(folder, words):
    """Nor is one with nowhere to go a traceback."""
    line = f"{shlex.quote(sys.executable)} -m jpeglm {words}"
    line = f"unset PYTHONUNBUFFERED; {line}"  # the room is asked for at the end
    full, closed = (
        subprocess.run(["bash", "-c", line + to], cwd=folder, capture_output=True, text=True)
        for to in (" >/dev/full", " >&-")
    )
    assert full.returncode == 1 and full.stderr == "jpeglm: No space left on device\n"
    assert closed.returncode in (0, 1) and "Traceback" not in closed.stderr


@pytest.mark.parametrize("words", [("--text", ""), ("--text=",)])
def test_an_empty_text_is_a_text(jpeglm, folder, tmp_path, words):
    ended = jpeglm("generate", "-n", 1, *words, *MODEL, "--out", tmp_path / "out", cwd=folder)
    assert ended.code == 0, ended.err


def test_what_is_told_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        fail("two\n  lines about a  name\x1b[31m", 3)
    assert ended.value.code == 3
    assert capsys.readouterr().err == "jpeglm: two lines about a  name\\x1b[31m\n"


def test_a_terminal_that_knows_few_letters():
    """It gets the others escaped."""
    done = subprocess.run(
        [sys.executable, "-m", "jpeglm", "models"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and r"64 \xd7 64" in done.stdout, done.stderr
