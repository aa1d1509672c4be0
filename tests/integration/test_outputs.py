"""What is written where: nothing of the user's is lost, nothing finished, nothing half-made."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import write_checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.folders import CHECKPOINT, DATA, DATA_FORMAT, PICTURES, RUN, kind_of, ours
from jpeglm.folders import CODEC as CODEC_FOLDER
from jpeglm.generation.model import Model
from jpeglm.generation.outputs import Drawn, Gallery
from jpeglm.generation.pictures import Pictures
from jpeglm.places import shipped_checkpoint
from jpeglm.tokenizer import Tokenizer

from ..unit.conftest import random_llama

CODEC = JpegCodec(JpegConfig(32, 32))


@pytest.fixture(scope="module")
def model(tmp_path_factory, pictures) -> Path:
    """A small checkpoint with two classes."""
    folder = tmp_path_factory.mktemp("outputs") / "model"
    streams = [CODEC.encode(picture) for picture in pictures]
    tokenizer = Tokenizer.train(streams, CODEC, vocab_size=280, n_classes=2)
    config, weights = random_llama(tokenizer.vocab_size, 400)
    write_checkpoint(folder, weights, config, tokenizer, "")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, pictures, model) -> Path:
    """A folder to work in, with a photo and the checkpoint."""
    monkeypatch.chdir(tmp_path)
    pictures[0].resize((60, 40)).save("photo.png")
    shutil.copytree(model, "model")
    return tmp_path


def held(folder: Path) -> dict[str, str]:
    """Name → hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(result, *words):
    code, out, err = result
    assert code == 1 and not out, (code, out, err)
    lines = [line for line in err.splitlines() if line.startswith("jpeglm: ")]
    assert len(lines) == 1
    for word in words:
        assert str(word) in lines[0], lines[0]


MODEL = ("--checkpoint", "model")
COMPLETE = ("complete", "photo.png", "-n", 2, *MODEL)
GENERATE = ("generate", "-n", 2, *MODEL)
NAMES = ["completion-00.jpg", "completion-01.jpg", "original.jpg", "prompt.jpg", "run.json",
         "sheet.png"]  # fmt: skip


def test_a_run_makes_room_for_the_next_and_for_nothing_else(here, jpeglm):
    Path("out").mkdir()
    mine = {"notes.txt": b"mine", "sample-77.jpg": b"mine", "prompt.png": b"mine",
            "sheet.gif": b"mine", "completion-1.png": b"mine"}  # fmt: skip
    for name, data in mine.items():
        Path("out", name).write_bytes(data)
    assert jpeglm(*COMPLETE, "--out", "out")[0] == 0
    assert sorted(os.listdir("out")) == sorted([*NAMES, *mine])
    told = json.loads(Path("out/run.json").read_text())
    assert told["finished"] and sorted(told["files"]) == NAMES
    assert jpeglm(*GENERATE, "--out", "out")[0] == 0  # of ours what run.json lists, no more
    written = ["sample-00.jpg", "sample-01.jpg", "sheet.png", "run.json"]
    assert sorted(os.listdir("out")) == sorted([*written, *mine])
    assert all(Path("out", name).read_bytes() == data for name, data in mine.items())


def test_many_fill_pages_which_make_room_too(here, jpeglm):
    """Names sort; the user's stay; fewer afterwards leave no page behind; what a page would be
    written over is refused."""
    Path("out").mkdir()
    Path("out/sheet-9.png").write_bytes(b"mine")
    ended = jpeglm("generate", "-n", 130, *MODEL, "--out", "out")
    assert "sample-000.jpg to sample-129.jpg" in ended.out, ended
    assert "side by side: out/sheet-1.png to sheet-3.png" in ended.out
    names = [f"sample-{number:03d}.jpg" for number in range(130)]
    pages = ["sheet-1.png", "sheet-2.png", "sheet-3.png"]
    assert json.loads(Path("out/run.json").read_text())["files"] == [*names, *pages, "run.json"]
    assert sorted(os.listdir("out")) == ["run.json", *names, *pages, "sheet-9.png"]
    sizes = [Image.open(Path("out", page)).height for page in pages]
    assert sizes[0] == sizes[1] > 4 * sizes[2]
    assert jpeglm(*GENERATE, "--out", "out").code == 0
    left = ["run.json", "sample-00.jpg", "sample-01.jpg", "sheet-9.png", "sheet.png"]
    assert sorted(os.listdir("out")) == left and Path("out/sheet-9.png").read_bytes() == b"mine"
    refused(jpeglm("generate", "-n", 570, *MODEL, "--out", "out"), "sheet-9.png", "another")


@pytest.mark.parametrize("name", ["original.jpg", "completion-01.jpg", "run.json", "sheet.png"])
def test_a_name_that_is_taken_is_refused(here, jpeglm, name):
    """`cd mine; jpeglm complete original.jpg --out .`, and every other name."""
    photo = "original.jpg" if name == "original.jpg" else "photo.png"
    Image.open("photo.png").save(name, "PNG")
    before = held(here)
    refused(jpeglm("complete", photo, "-n", 2, *MODEL, "--out", "."), name, "another")
    refused(jpeglm("complete", photo, "-n", 2, *MODEL, "--out", here), name, "another")
    assert held(here) == before


def test_generate_beside_the_users_pictures(here, jpeglm):
    for name in ("original.jpg", "prompt.png", "sheet.gif", "sample-99.jpg"):
        Image.open("photo.png").save(name, "PNG")
    before = held(here)
    assert jpeglm(*GENERATE, "--out", ".")[0] == 0
    assert jpeglm(*GENERATE, "--out", ".", "--seed", 7)[0] == 0
    assert held(here).items() >= before.items()


def test_all_that_is_written_is_known_as_ours(here, jpeglm, pictures):
    """So that a second run finds nothing foreign in the folder of the first."""
    Path("pictures").mkdir()
    for number in range(20):
        pictures[number % 4].resize((40 + number, 32)).save(f"pictures/{number}.png")
    Path("pictures/broken.png").write_bytes(b"")
    words = ("--size", 32, "--validation", 0.3)
    small = ("--steps", 1, "--channels", 8, "--blocks", 0, "--batch", 2, "--threads", 1)
    for line, place, kind in (
        (
            ("prepare", "pictures", "data", *words, "--workers", 1, "--tokenizer", "model"),
            "data",
            DATA,
        ),
        (("train-vae", "pictures", *words, *small, "--out", "vae"), "vae", RUN),
        (("train-vqvae", "pictures", *words, *small, "--out", "vq"), "vq", RUN),
        ((), "vae/model", CODEC_FOLDER),
        ((), "vq/model", CODEC_FOLDER),
        (("export", "--checkpoint", "model", "--out", "hf"), "hf", CHECKPOINT),
        (("generate", "--checkpoint", "vae", "-n", 2, "--out", "s"), "s", PICTURES),
        ((*COMPLETE, "--out", "c"), "c", PICTURES),
    ):
        for _ in range(2 if line else 0):
            code, _, err = jpeglm(*line)
            assert code == 0, err
        assert kind_of(Path(place)) is kind
        assert ours(Path(place), kind) == sorted(os.listdir(place))


@pytest.mark.parametrize("link", [os.link, os.symlink, shutil.copy])
def test_an_input_is_never_written_over(here, jpeglm, link):
    """Not even when an earlier run wrote it, through another name or none."""
    assert jpeglm(*COMPLETE, "--out", "out")[0] == 0
    before = held(here / "out")
    for source in ("out/completion-00.jpg", "./out/../out/original.jpg", "out/sheet.png"):
        words = ("complete", source, "-n", 2, *MODEL, "--out")
        refused(jpeglm(*words, "out"), "out")
        refused(jpeglm(*words, here / "out"), "out")
    link(here / "out/completion-00.jpg", here / "again.jpg")
    result = jpeglm("complete", "again.jpg", "-n", 2, *MODEL, "--out", "out")
    if link is shutil.copy:
        assert result[0] == 0
    else:
        refused(result, "is an input and cannot be overwritten")
        assert held(here / "out") == before


def test_a_link_in_the_place_of_an_output_is_the_users(here, jpeglm):
    assert jpeglm(*GENERATE, "--out", "out")[0] == 0
    Path("precious.jpg").write_bytes(b"precious")
    Path("out/sample-00.jpg").unlink()
    Path("out/sample-00.jpg").symlink_to(here / "precious.jpg")
    refused(jpeglm(*GENERATE, "--out", "out"), "sample-00.jpg")
    assert Path("precious.jpg").read_bytes() == b"precious"
    assert Path("out/sample-00.jpg").is_symlink()


def test_a_record_that_lists_more_than_ours_removes_nothing_else(here, jpeglm):
    Path("precious.jpg").write_bytes(b"precious")
    assert jpeglm(*GENERATE, "--out", "out")[0] == 0
    Path("out/holiday.jpg").write_bytes(b"precious")
    told = json.loads(Path("out/run.json").read_text())
    told["files"] += ["../precious.jpg", str(here / "precious.jpg"), "holiday.jpg", "..", 7]
    Path("out/run.json").write_text(json.dumps(told))
    assert jpeglm(*GENERATE, "--out", "out")[0] == 0
    assert Path("precious.jpg").exists() and Path("out/holiday.jpg").exists()


def test_photos_of_one_name_get_folders_of_their_own(here, jpeglm):
    for folder, suffix in (("a", "jpg"), ("b", "png")):
        Path(folder).mkdir()
        Image.open("photo.png").save(f"{folder}/x.{suffix}")
    code, out, err = jpeglm("complete", "a/x.jpg", "-n", 1, *MODEL)
    assert code == 0 and "x-completions/" in out
    code, out, err = jpeglm("complete", "b/x.png", "-n", 1, *MODEL)
    assert code == 0 and "x-completions-2/" in out and "b/x.png" in err
    first, second = (
        json.loads(Path(f"x-completions{end}/run.json").read_text())["photo"] for end in ("", "-2")
    )
    assert (first, second) == ("a/x.jpg", "b/x.png")
    for photo, folder in (("./a/x.jpg", "x-completions/"), ("b/x.png", "x-completions-2/")):
        assert folder in jpeglm("complete", photo, "-n", 1, *MODEL)[1]  # its own again
    Path("photo-completions").write_text("a file of mine")
    assert "photo-completions-2/" in jpeglm(*COMPLETE)[1]
    assert Path("photo-completions").read_text() == "a file of mine"


@pytest.mark.parametrize(
    "words",
    [
        GENERATE,
        COMPLETE,
        ("export", *MODEL),
        ("train-tokenizer", "pictures", "--size", 32),
        ("prepare", "pictures"),
        ("train", "pictures", "--tokenizer", "model", "--steps", 1),
        ("train-vae", "pictures", "--steps", 1),
        ("train-vqvae", "pictures", "--steps", 1),
    ],
    ids=lambda words: words[0],
)
def test_where_it_cannot_be_written_is_told_before_the_work(here, jpeglm, words, monkeypatch):
    """A file, below a file, a checkpoint, a folder of the user's, one that may not be written."""
    Path("pictures").mkdir()
    Image.open("photo.png").save("pictures/photo.png")
    Path("file").write_text("mine")
    kind = words[0]
    for folder in ("foreign", "closed"):
        Path(folder).mkdir()
    for name in ("config.json", "codec.json", "dataset.json", "run.json", "README.md"):
        Path("foreign", name).write_text(json.dumps({"mine": 1}))
    before = held(here)

    def option(place):
        return (place,) if kind == "prepare" else ("--out", place)

    for place in ("file", "file/below", "model", "foreign"):
        refused(jpeglm(*words, *option(place)), place)
    if os.geteuid():
        Path("closed").chmod(0o500)
        refused(jpeglm(*words, *option("closed")), "closed")
        refused(jpeglm(*words, *option("closed/below")), "closed")
        Path("closed").chmod(0o700)
    refused(jpeglm(*words, *option("x" * 300)), "too long")
    assert held(here) == before


def test_export_leaves_a_folder_with_anything_of_the_users(here, jpeglm):
    assert jpeglm("export", "--checkpoint", "model", "--out", "hf")[0] == 0
    assert (
        jpeglm("export", "--checkpoint", "model", "--out", "hf", "--dtype", "float32")[0] == 0
    )  # ours
    Path("hf/notes.txt").write_text("mine")
    before = held(here)
    refused(jpeglm("export", "--checkpoint", "model", "--out", "hf"), "notes.txt")
    refused(jpeglm("export", "--checkpoint", "model", "--out", "."), "was not written by jpeglm")
    refused(jpeglm("export", "--checkpoint", "model", "--out", "model"), "model")
    refused(jpeglm("export", "--checkpoint", "model", "--out", "model/inside"), "inside")
    assert held(here) == before


def test_a_folder_in_the_place_of_a_file_is_the_users(here, jpeglm):
    assert jpeglm("export", "--checkpoint", "model", "--out", "hf")[0] == 0
    Path("hf/README.md").unlink()
    Path("hf/README.md").mkdir()
    Path("hf/README.md/mine.txt").write_text("mine")
    refused(jpeglm("export", "--checkpoint", "model", "--out", "hf"), "README.md")
    assert Path("hf/README.md/mine.txt").read_text() == "mine"


def test_a_runs_part_may_lie_on_another_disk(here):
    from jpeglm.files import write_json
    from jpeglm.folders import claim

    write_json(Path("run/config.json"), {"settings": {}, "parameters": 1})
    Path("disk").mkdir()
    for name in ("checkpoints", "model"):
        Path("run", name).symlink_to(here / "disk")
    claim(Path("run"), RUN)


def test_kinds_that_are_no_neighbours(here):
    """Prepared data lie alone; pictures may lie in a run's folder."""
    from jpeglm.files import write_json
    from jpeglm.folders import claim

    write_json(Path("data/prepare.json"), {"format": DATA_FORMAT})
    write_json(Path("run/config.json"), {"settings": {}, "parameters": 1})
    write_json(Path("codec/codec.json"), {"codec": {}, "fingerprint": ""})
    for out, kind, what in (
        ("data", RUN, "prepared data"), ("data", PICTURES, "prepared data"),
        ("run", DATA, "a training run"), ("codec", RUN, "a codec"), ("codec", PICTURES, "a codec"),
        ("run", CHECKPOINT, "a training run"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"^{out} holds {what}; give another folder"):
            claim(Path(out), kind)
    claim(Path("run"), PICTURES)


def test_parts_of_a_run(here):
    """One that is read is not written over; the millionth step is later than those before it."""
    from jpeglm.files import write_json
    from jpeglm.folders import claim, steps_in

    write_json(Path("run/config.json"), {"settings": {}, "parameters": 1})
    for name in ("model/below", "step-1000000", "step-999999"):
        Path("run", name).mkdir(parents=True)
    for source in ("run/model", "run/model/below", "model"):
        if source == "model":
            shutil.rmtree("model")
            Path("model").symlink_to("run/model")
        with pytest.raises(InputError, match=r"^run/model is an input and cannot be overwritten"):
            claim(Path("run"), RUN, inputs=[Path(source)])
    assert [path.name for path in steps_in(Path("run"))] == ["step-999999", "step-1000000"]


def test_names_of_the_users_that_are_like_ours(here):
    """A shard without our record; pictures beside another program's run.json."""
    from jpeglm.folders import claim

    for name in ("mine/shard-00007.parquet", "theirs/run.json", "theirs/sample-00.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text('{"files": ["sample-00.jpg", "run.json"]}')
    for folder, kind, name in (
        ("mine", DATA, "mine/shard-00007.parquet"),
        ("theirs", PICTURES, "theirs/(run.json|sample-00.jpg)"),
    ):
        with pytest.raises(InputError, match=f"^{name} was not written by jpeglm"):
            claim(Path(folder), kind)
    assert ours(Path("theirs"), PICTURES) == []


def test_asking_leaves_no_trace(here):
    from jpeglm.folders import claim

    before = sorted(here.rglob("*"))
    claim(Path("new/below/it"), PICTURES)
    assert sorted(here.rglob("*")) == before


@pytest.mark.skipif(not shutil.which("bash"), reason="this system has no bash")
@pytest.mark.parametrize(
    "name",
    ["-n", "a b", "it's", "$HOME", "é.jpg", "two\nlines", "\x1bit's\\n", "\\\t", "caf\udce9's"],
)
def test_a_name_is_pasted_as_it_is(name):
    """As bash reads it."""
    from jpeglm.folders import quoted

    line = f"printf %s {quoted(name)}"
    assert line.isprintable()
    told = subprocess.run(["bash", "-c", line], capture_output=True, env={"LC_ALL": "C.UTF-8"})
    expected = f"./{name}" if name.startswith("-") else name
    assert told.stdout == os.fsencode(expected) and not told.stderr


def test_a_link_that_leads_nowhere_is_no_file(here):
    from jpeglm.folders import claim

    Path("nowhere").symlink_to("gone")
    with pytest.raises(InputError, match="nowhere is a link that leads nowhere, but a folder"):
        claim(Path("nowhere"), PICTURES)


def test_another_programs_llama_is_not_ours(here, jpeglm):
    """The same names in the same form, but no codec.json: nobody can make it again from ours."""
    shutil.copytree("model", "theirs")
    Path("theirs/codec.json").unlink()
    before = held(here)
    refused(jpeglm("export", "--checkpoint", "model", "--out", "theirs"), "theirs")
    refused(jpeglm("train-tokenizer", ".", "--out", "theirs"), "theirs")
    refused(jpeglm("train", ".", "--tokenizer", "model", "--steps", 1, "--out", "theirs"), "theirs")
    assert held(here) == before


def test_evaluate_claims_its_folder(here, jpeglm, monkeypatch):
    """Before a model is opened, let alone measured."""
    from jpeglm.generation import loading

    def never(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(loading, "load", never)
    for name, text in {"mine": '{"mine": 1}', "text": "mine"}.items():
        Path(name).mkdir()
        Path(name, "result.json").write_text(text)
    Path("drawn").mkdir()
    Path("drawn/sheet.png").write_text("mine")
    before = held(here)
    for verb in (("validity",), ("likelihood", "mine"), ("completion", "mine")):
        for place in ("mine", "text", "drawn", "photo.png", "photo.png/x", "model",
                      "model/config.json"):  # fmt: skip
            refused(jpeglm("evaluate", *verb, *MODEL, "--out", place), place.split("/")[0])
    refused(jpeglm("evaluate", "completion", "mine", *MODEL, "--pictures", "photo.png"), "photo")
    assert held(here) == before


def test_figures_are_shown_though_they_cannot_be_kept(here, jpeglm, small_files):
    words = ("evaluate", "validity", *MODEL, "-n", 1, "--out", "valid")
    small_files(10)
    code, out, err = jpeglm(*words)
    assert code == 1 and "with grammar" in out and "no space is left" in err
    assert not Path("valid/result.json").exists()


def test_evaluate_replaces_its_own_result(here, jpeglm):
    """And what it drew beside it, though not what others put there."""
    words = ("evaluate", "validity", *MODEL, "-n", 1, "--out", "new/valid")
    told = jpeglm.told(*words)
    assert json.loads(Path("new/valid/result.json").read_text()) == told
    assert told["evaluated"] == "validity" and told["files"] == []
    Path("new/valid/plot.png").write_text("an earlier one")
    Path("new/valid/notes.txt").write_text("mine")
    refused(jpeglm(*words), "plot.png")
    record = {**told, "files": ["plot.png"]}
    Path("new/valid/result.json").write_text(json.dumps(record))
    assert jpeglm(*words)[0] == 0
    assert sorted(os.listdir("new/valid")) == ["notes.txt", "result.json"]


class Interrupted:
    """`Model.generate` and `complete` with a Ctrl-C, or another end, after some pictures."""

    def __init__(self, monkeypatch, after: int, error: type[BaseException] = KeyboardInterrupt):
        before = Model._draw

        def draw(self, prompt, n, pictures, *, each, **options):
            count = 0

            def counted(whole, drawn):
                nonlocal count
                each(whole, drawn)
                count += 1
                if count == after:
                    raise error

            return before(self, prompt, n, pictures, each=counted, **options)

        monkeypatch.setattr(Model, "_draw", draw)


@pytest.mark.parametrize("words", [GENERATE, COMPLETE], ids=["generate", "complete"])
def test_ctrl_c_keeps_what_was_drawn_and_says_so(here, jpeglm, monkeypatch, words):
    assert jpeglm(*words, "--out", "out")[0] == 0
    whole = held(here / "out")
    with monkeypatch.context() as patch:
        Interrupted(patch, 3)
        code, out, err = jpeglm(*words, "-n", 5, "--batch", 2, "--out", "out")
    assert (code, out) == (130, "") and err.endswith("stopped, 3 of 5 written to out\n")
    told = json.loads(Path("out/run.json").read_text())
    assert not told["finished"] and told["pictures"] == 3
    assert sorted(told["files"]) == sorted(os.listdir("out"))
    drawn = [name for name in told["files"] if name.startswith(("sample", "completion"))]
    assert len(drawn) == 3
    for name in drawn:  # whole ones, of the same seeds as in a run that was not stopped
        assert Image.open(Path("out", name)).size == (32, 32)
        assert whole.get(name) in (None, held(here / "out")[name])
    assert jpeglm(*words, "--out", "out")[0] == 0
    assert {n: h for n, h in held(here / "out").items() if n != "run.json"} == {
        n: h for n, h in whole.items() if n != "run.json"
    }


def test_pages_of_a_stopped_run_are_among_those_that_were_claimed(here, jpeglm, monkeypatch):
    """Fewer pages than the run would have had, and a user's that is named as a shorter run's."""
    Path("out").mkdir()
    Path("out/sheet-1.png").write_bytes(b"mine")
    with monkeypatch.context() as patch:
        Interrupted(patch, 70)
        code, _, err = jpeglm("generate", "-n", 640, *MODEL, "--out", "out")
    assert code == 130 and err.endswith("stopped, 70 of 640 written to out\n"), err
    told = json.loads(Path("out/run.json").read_text())
    assert told["files"][-3:] == ["sheet-01.png", "sheet-02.png", "run.json"]
    assert sorted(os.listdir("out")) == sorted([*told["files"], "sheet-1.png"])
    assert Path("out/sheet-1.png").read_bytes() == b"mine"


def test_ctrl_c_before_the_first_picture_changes_nothing(here, jpeglm, monkeypatch):
    assert jpeglm(*GENERATE, "--out", "out")[0] == 0
    before = held(here)
    monkeypatch.setattr(Model, "_draw", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    for out in ("out", "new"):
        code, _, err = jpeglm(*GENERATE, "--out", out)
        assert code == 130 and err.endswith("stopped, 0 of 2 written\n")
    assert held(here) == before and not Path("new").exists()


def test_ctrl_c_anywhere_else_says_that_it_stopped(here, jpeglm, monkeypatch):
    from jpeglm.data import prepare

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "open_source", interrupted)
    code, out, err = jpeglm("prepare", ".", "out")
    assert code == 130 and not out and "resumes" in err
    monkeypatch.setattr("jpeglm.generation.loading.load", interrupted)
    code, out, err = jpeglm("evaluate", "validity", *MODEL)
    assert code == 130 and not out and err.endswith("stopped\n")


def test_a_file_system_that_ignores_case(here, jpeglm, monkeypatch):
    """There Sample-01.JPG has the name sample-01.jpg, though no list has it."""
    lexists = os.path.lexists

    def ignoring(path):
        folder, name = os.path.split(path)
        names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        return lexists(path) or name.lower() in map(str.lower, names)

    assert jpeglm(*GENERATE, "--out", "out")[0] == 0
    Path("out/sample-01.jpg").unlink()
    Path("out/Sample-01.JPG").write_bytes(b"mine")
    monkeypatch.setattr(os.path, "lexists", ignoring)
    refused(jpeglm(*GENERATE, "--out", "out"), "sample-01.jpg")
    assert Path("out/Sample-01.JPG").read_bytes() == b"mine"


def test_folders_that_may_not_be_written(here, model):
    """As somebody without rights, whom a root user may become."""
    Path("closed").mkdir(mode=0o555)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from jpeglm.folders import EVALUATION, PICTURES, claim\n"
        "if not os.geteuid(): os.setuid(65534)\n"
        "for call in (lambda: claim(Path('closed'), PICTURES),\n"
        "             lambda: claim(Path('closed/below/it'), PICTURES),\n"
        "             lambda: claim(Path('closed/x'), EVALUATION)):\n"
        "    try:\n"
        "        call()\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    for path in (here, *here.parents[:2]):
        path.chmod(path.stat().st_mode | 0o055)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if "Permission denied" in done.stderr:
        pytest.skip("the package itself cannot be read by somebody else here")
    said = done.stdout.splitlines()
    assert [line.split(":")[0] for line in said] == [
        "cannot use closed", "cannot use closed/below/it", "cannot use closed/x"
    ]  # fmt: skip


def test_killed_at_any_moment_nothing_is_unknown(here, jpeglm, model):
    """SIGKILL while drawing: run.json lists what lies there, and the next run clears it away."""
    command = [sys.executable, "-m", "jpeglm", "generate", "-n", "4000", "--batch", "8",
               "--checkpoint", str(model), "--out", "out"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(list(Path("out").glob("sample-*"))) < 20 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    told = json.loads(Path("out/run.json").read_text())
    lying = {name for name in os.listdir("out") if not name.startswith(".")}
    assert not told["finished"] and len(lying) > 20
    assert lying <= set(told["files"])
    for name in sorted(lying - {"run.json"}):
        assert Image.open(Path("out", name)).size == (32, 32)
    assert jpeglm(*GENERATE, "--out", "out")[0] == 0
    assert sorted(os.listdir("out")) == ["run.json", "sample-00.jpg", "sample-01.jpg", "sheet.png"]


@pytest.fixture
def small_files(monkeypatch):
    """The disk is full for whatever file is larger than so many bytes: half of it is written."""
    opened = os.fdopen
    monkeypatch.setattr("jpeglm.generation.outputs.Gallery.FLUSH_SECONDS", -1.0)

    def limit(most: float) -> None:
        def fdopen(handle, mode="r", *rest, **more):
            file = opened(handle, mode, *rest, **more)
            if mode != "wb":
                return file
            write = file.write

            class Full:
                def write(self, data):
                    if len(data) > most:
                        write(data[: len(data) // 2])
                        raise OSError(28, "No space left on device")
                    return write(data)

                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def __getattr__(self, name):
                    return getattr(file, name)

            return Full()

        monkeypatch.setattr(os, "fdopen", fdopen)

    return limit


def test_a_full_disk_leaves_completions_as_they_were(here, jpeglm, small_files):
    """Whatever file it is that finds no room: the first, one in the middle, the sheet."""
    assert jpeglm(*COMPLETE, "--out", "out")[0] == 0
    sizes = sorted({path.stat().st_size for path in Path("out").iterdir()})
    before = held(here)
    for most in [1, *(size - 1 for size in sizes)]:
        for out in ("out", "new"):
            small_files(most)
            code, _, err = jpeglm(*COMPLETE, "-n", 3, "--seed", 5, "--out", out)
            small_files(float("inf"))
            assert code == 1 and "no space is left" in err and out in err, err
            assert held(here) == before and not Path("new").exists()
    assert not list(Path("out").glob(".*"))


def test_a_full_disk_keeps_samples_that_are_whole(here, jpeglm, small_files):
    assert jpeglm(*GENERATE, "-n", 5, "--out", "whole")[0] == 0
    whole = held(here / "whole")
    sizes = {path.stat().st_size for path in Path("whole").iterdir()}
    kept = set()
    for most in sorted(sizes):
        small_files(most - 1)
        shutil.rmtree("out", ignore_errors=True)
        code, _, err = jpeglm(*GENERATE, "-n", 5, "--out", "out")
        assert code == 1 and "no space is left" in err
        lying = sorted(os.listdir("out")) if Path("out").exists() else []
        kept.add(len(lying))
        if lying:
            told = json.loads(Path("out/run.json").read_text())
            assert sorted(told["files"]) == lying and not told["finished"]
        for name in lying:
            assert name == "run.json" or whole[name] == held(here / "out")[name]
    assert 0 in kept and 6 in kept  # none fitted; all but the sheet did


def test_a_disk_that_is_really_full(here, model):
    """The same through the system: no file may grow beyond 2000 bytes, the sheet would."""
    command = [sys.executable, "-m", "jpeglm", "complete", "photo.png", "-n", "2",
               "--checkpoint", str(model), "--out", "out"]  # fmt: skip
    limit = (2000, resource.RLIM_INFINITY)
    done = subprocess.run(
        command, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    assert done.returncode == 1 and "sheet.png" in done.stderr.splitlines()[-1], done.stderr
    assert not Path("out").exists()


def test_windows_flushes_no_folder(here, monkeypatch):
    """There a folder cannot be opened, nor a file flushed that is open for reading."""
    from jpeglm import files

    opened, flush = os.open, os.fsync

    def open_(path, flags, *rest, **more):
        if os.path.isdir(path) and not flags & getattr(os, "O_TMPFILE", 0):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *rest, **more)

    def fsync(handle):
        import fcntl

        if fcntl.fcntl(handle, fcntl.F_GETFL) & 3 == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flush(handle)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    files.atomic_write(here / "a/b.txt", b"text")
    with files.atomic_folder(here / "folder") as draft:
        (draft / "c.txt").write_text("text")
    assert (here / "a/b.txt").read_bytes() == b"text"
    assert (here / "folder/c.txt").read_text() == "text"


def test_a_folder_that_is_replaced_keeps_what_is_not_ours(here):
    from jpeglm import files

    (here / "folder/inner").mkdir(parents=True)
    (here / "folder/inner/mine.txt").write_text("mine")
    (here / "folder/ours.json").write_text("old")
    (here / "folder/gone.json").write_text("old")
    with files.atomic_folder(here / "folder", ("*.json",)) as draft:
        (draft / "ours.json").write_text("new")
    assert sorted(os.listdir(here / "folder")) == ["inner", "ours.json"]
    assert not list(here.glob(".*"))
    assert (here / "folder/inner/mine.txt").read_text() == "mine"
    assert (here / "folder/ours.json").read_text() == "new"
    with (
        pytest.raises(files.InputError, match="already holds files"),
        files.atomic_folder(here / "folder"),
    ):
        pass


def test_a_folder_that_is_replaced_keeps_the_users_links_and_what_may_only_be_read(here):
    """Links stay links, also that one through which the folder itself is reached."""
    from jpeglm import files

    for name in ("disk/folder/kept", "elsewhere"):
        Path(name).mkdir(parents=True)
    Path("elsewhere/data.txt").write_text("mine")
    Path("elsewhere/data.txt").chmod(0o400)
    Path("folder").symlink_to("disk/folder")
    for name in ("folder/data.txt", "folder/kept/data.txt"):
        Path(name).symlink_to(here / "elsewhere/data.txt")
    Path("folder/all").symlink_to(here / "elsewhere")
    shutil.copy("elsewhere/data.txt", "folder/locked.txt")
    with files.atomic_folder(here / "folder", ("*.json",)) as draft:
        (draft / "ours.json").write_text("new")
    assert Path("folder").is_symlink() and Path("disk/folder/ours.json").read_text() == "new"
    for name in ("data.txt", "kept/data.txt", "all"):
        assert Path("disk/folder", name).is_symlink()
    assert Path("disk/folder/locked.txt").read_text() == "mine"
    assert Path("disk/folder/locked.txt").stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_who_may_read_is_the_users_to_say(here, umask):
    """As of any file that programs make; tempfile's are for the owner alone."""
    from jpeglm import files

    before = os.umask(umask)
    try:
        files.atomic_write(here / "file", b"")
        with files.atomic_folder(here / "folder"):
            pass
    finally:
        os.umask(before)
    assert (here / "file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (here / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


def test_what_is_staged_comes_into_its_place_after_the_work(here):
    from jpeglm import files

    files.atomic_write(here / "alone/file", b"old")
    with (
        pytest.raises(ZeroDivisionError),
        files.staged(here / "alone/file", b"new"),
        files.staged(here / "alone/other", b"new"),
    ):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), files.atomic_folder(here / "alone/folder") as draft:
        (draft / "file").write_text("new")
        raise ZeroDivisionError
    assert os.listdir("alone") == ["file"]
    with files.staged(here / "alone/file", [b"n", b"ew"]):
        assert Path("alone/file").read_bytes() == b"old"
    assert Path("alone/file").read_bytes() == b"new"


def test_what_is_renamed_lies_on_the_disk(here, monkeypatch):
    """Where the power fails after a rename, the system may have the name and not the bytes."""
    from jpeglm import files

    done, flush, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda h: (flush(h), done.append(os.fstat(h).st_ino)))
    monkeypatch.setattr(os, "replace", lambda *names: (rename(*names), done.append("renamed")))

    def number(name):
        return (here / name).stat().st_ino

    files.atomic_write(here / "file", b"text")
    assert done == [number("file"), "renamed", number(".")]
    done.clear()
    with files.atomic_folder(here / "folder") as draft:
        (draft / "inner").mkdir()
        (draft / "inner/file").write_text("text")
    first = done.index("renamed")
    assert {number(f"folder{name}") for name in ("", "/inner", "/inner/file")} <= {*done[:first]}
    assert done[first:] == ["renamed", number(".")]


class Killed:
    """Processes that end as by SIGKILL before the n-th change of the disk."""

    CHANGES = ("replace", "unlink", "rmdir", "mkdir")

    def __init__(self, work):
        self.work = work

    def __call__(self, n) -> bool:
        """Whether the work of a process of its own was still going on then."""
        child = os.fork()
        if not child:
            left = n

            def counted(change):
                def run(*given, **more):
                    nonlocal left
                    if not left:
                        os._exit(9)
                    left -= 1
                    return change(*given, **more)

                return run

            with pytest.MonkeyPatch.context() as patch:
                for name in self.CHANGES:
                    patch.setattr(os, name, counted(getattr(os, name)))
                try:
                    self.work()
                finally:
                    os._exit(0 if sys.exc_info()[0] is None else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        return code == 9


def test_a_folder_that_is_replaced_survives_a_kill_at_any_step(here):
    """The next command finds the old one or the new one, and nothing else."""
    from jpeglm import files

    def replace():
        with files.atomic_folder(here / "run/step-1", ("*.json",)) as draft:
            (draft / "a.json").write_text("new")

    killed, steps = Killed(replace), 0
    while True:
        shutil.rmtree("run", ignore_errors=True)
        Path("run/step-1").mkdir(parents=True)
        Path("run/step-1/a.json").write_text("old")
        Path("run/step-1/notes.txt").write_text("mine")
        alive = killed(steps)
        files.remove_halves(here / "run", ("step-*",))
        assert os.listdir("run") == ["step-1"]
        assert sorted(os.listdir("run/step-1")) == ["a.json", "notes.txt"]
        assert Path("run/step-1/a.json").read_text() in ("old", "new")
        if not alive:
            break
        steps += 1
    assert steps > 4 and Path("run/step-1/a.json").read_text() == "new"


def drawn_by_hand(pictures, sizes) -> Pictures:
    """What a call would give that drew so many tokens for each picture."""
    streams = [CODEC.encode(picture) for picture, _ in zip(pictures, sizes)]
    return Pictures(
        images=[CODEC.decode(stream) for stream in streams],
        streams=streams,
        ids=[np.zeros(size, np.int32) for size in sizes],
        bits=[10.0 * size for size in sizes],
        seconds=2.0,
        prompt_tokens=4,
        codec=CODEC,
        settings={"seed": 1},
        record={"checkpoint": "by hand"},
    )


def test_pictures_of_a_run_survive_a_kill_at_any_step(here, pictures, monkeypatch):
    """The earlier run's are there until the first new one is; all that lies there is known; the
    next run leaves its own alone, or what there was, if it fails. So too after two kills."""
    monkeypatch.setattr(Gallery, "FLUSH_SECONDS", -1.0)
    old, new = drawn_by_hand(pictures[:2], (1, 2)), drawn_by_hand(pictures[2:4], (3, 4))
    mine = {"notes.txt": b"mine", "sample-77.jpg": b"mine"}
    old.save("whole")
    for name, data in mine.items():
        Path("whole", name).write_bytes(data)

    def known():
        record = Path("out/run.json")
        listed = json.loads(record.read_text())["files"] if record.exists() else []
        return {name for name in os.listdir("out") if name[0] != "."} <= {*mine, *listed}

    def kept():
        files = {path.read_bytes() for path in Path("out").rglob("*.jpg")}
        return files >= {*old.files} or files & {*new.files}

    killed, begun = Killed(lambda: new.save("out")), ["whole"]
    for begin in begun:
        for step in range(100):
            shutil.rmtree("out", ignore_errors=True)
            shutil.copytree(begin, "out")
            alive = killed(step)
            assert known() and kept()
            if begin == "whole" and len(begun) == 1 and list(Path("out").glob(".*/run.json")):
                shutil.copytree("out", "moved")  # all of the earlier run's, nothing of the new one
                begun.append("moved")
            with (
                pytest.raises(ZeroDivisionError),
                Gallery(here / "out", CODEC, "completion", 1, {}) as gallery,
            ):
                gallery.add(new, Drawn(0, new.images[0], new.streams[0], 1, 1.0))
                raise ZeroDivisionError
            assert kept()
            new.save("out")
            written = ["run.json", "sample-00.jpg", "sample-01.jpg", "sheet.png"]
            assert sorted(os.listdir("out")) == sorted([*written, *mine])
            assert all(Path("out", name).read_bytes() == data for name, data in mine.items())
            if not alive:
                break
        assert 9 < step < 99
    assert len(begun) == 2


@pytest.mark.parametrize("wait", [-1.0, 1000.0])
def test_the_record_tells_pictures_in_their_order(here, pictures, monkeypatch, wait):
    """Though a short one is drawn before a long one that was begun earlier. Meanwhile those that
    waited long enough are on the disk."""
    monkeypatch.setattr(Gallery, "FLUSH_SECONDS", wait)
    drawn = drawn_by_hand(pictures, (5, 6, 9))
    with Gallery(here / "out", CODEC, "sample", 3, drawn.record) as gallery:
        for number in (2, 0, 1):
            row = drawn.images[number], drawn.streams[number], len(drawn.ids[number])
            gallery.add(drawn, Drawn(number, *row, drawn.bits[number]))
            assert Path("out", f"sample-{number:02d}.jpg").exists() == (wait < 0)
        told = gallery.finish(drawn)
    assert told == json.loads(Path("out/run.json").read_text())
    expected = {
        "finished": True, "pictures": 3, "tokens": 20, "prompt_tokens": 4, "seconds": 2.0,
        "tokens_per_second": 10.0, "bits": [50.0, 60.0, 90.0], "bits_per_image": 66.7,
        "settings": {"seed": 1}, "checkpoint": "by hand", "out": str(here / "out"),
    }  # fmt: skip
    assert {name: told[name] for name in told if name != "files"} == expected
    for number, file in enumerate(drawn.files):
        assert Path("out", f"sample-{number:02d}.jpg").read_bytes() == file
    with pytest.raises(InputError, match="is an input and cannot be overwritten"):
        Gallery(here / "out", CODEC, "sample", 3, {}, [here / "out/sample-01.jpg"])
    Pictures(images=drawn.images).save("vae")  # which has neither streams nor bits
    told = json.loads(Path("vae/run.json").read_text())
    assert told["bits"] == [] and "bits_per_image" not in told


def test_a_quota_that_is_used_up_is_a_full_disk():
    from jpeglm.files import explain

    for number in (errno.ENOSPC, errno.EDQUOT):
        assert "no space is left" in str(explain(OSError(number, ""), Path("a")))
    assert "no space" not in str(explain(OSError(errno.EIO, "broken"), Path("a")))


def test_a_full_disk_is_told_of_the_folder_and_not_of_its_draft(here, monkeypatch):
    from jpeglm import files

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(files.InputError) as caught,
        files.atomic_folder(here / "folder") as draft,
    ):
        monkeypatch.setattr(os, "fsync", full)
        files.atomic_write(draft / "model.bin", b"x")
    assert f"{here / 'folder' / 'model.bin'}" in str(caught.value)
    assert ".tmp" not in str(caught.value) and not (here / "folder").exists()


@pytest.mark.parametrize("name", ["folder", "two\nlines"])
def test_an_error_names_the_folder_and_stays_what_it_is(here, name):
    from jpeglm import files
    from jpeglm.config import StreamError

    with pytest.raises(StreamError, match="a stream"), files.atomic_folder(here / name):
        raise StreamError("a stream", 7)
    with (
        pytest.raises(files.InputError) as caught,
        files.atomic_folder(here / name) as draft,
    ):
        (draft / "file").touch()
        files.atomic_write(draft / "file" / "below", b"x")
    assert ".tmp" not in str(caught.value) and "\n" not in str(caught.value)


def test_litter_of_ours_is_cleared_and_the_users_hidden_files_stay(here, jpeglm):
    Path("pictures").mkdir()
    Image.open("photo.png").save("pictures/photo.png")
    Path("out").mkdir()
    for name in (".mine.tmp", ".notes.abcdefgh.tmp", ".vimrc"):
        Path("out", name).write_text("mine")
    Path("out/.shard-00000.parquet.abcdefgh.tmp").write_text("half")
    Path("out/.sample-00.jpg.abcdefgh.tmp").write_text("half")
    assert jpeglm("prepare", "pictures", "out", "--size", 32)[0] == 0
    left = {name for name in os.listdir("out") if name.startswith(".")}
    assert left == {".mine.tmp", ".notes.abcdefgh.tmp", ".vimrc", ".sample-00.jpg.abcdefgh.tmp"}


def test_litter_in_the_folders_of_a_folder_is_cleared(here, jpeglm, pictures):
    Path("pictures").mkdir()
    for number in range(8):
        pictures[number % 4].resize((40 + number, 32)).save(f"pictures/{number}.png")
    words = ("prepare", "pictures", "data", "--size", 32, "--tokenizer", "model", "--workers", 1)
    vae = ("train-vae", "pictures", "--size", 32, "--steps", 1, "--channels", 8, "--blocks", 0,
           "--batch", 2, "--threads", 1, "--validation", 0.3, "--out", "vae")  # fmt: skip
    litter = ["data/tokenizer/.codec.json.abcdefgh.tmp", "vae/.state.pt.abcdefgh.tmp",
              "vae/samples/.step-000001.png.abcdefgh.tmp"]  # fmt: skip
    for _ in range(2):
        assert jpeglm(*words)[0] == 0 and jpeglm(*vae)[0] == 0
        assert not [name for name in litter if Path(name).exists()]
        for name in litter:
            Path(name).write_text("half")


def test_a_draft_in_a_draft(here):
    """What is written into a folder that is being written: never taken for what it was to be."""
    from jpeglm.files import half_of, remove_halves
    from jpeglm.folders import claim

    assert half_of(".a.json.abcdefgh.tmp") == half_of("..a.json.abcdefgh.tmp.zyxwvuts.tmp")
    assert half_of(".a.json.abcdefgh.tmp") == "a.json"
    assert half_of(".notes.tmp") is half_of("a.json") is half_of(".vimrc") is None
    for name in ("..step-7.abcdefgh.tmp.abcdefgh.tmp", "..step-7.abcdefgh.tmp.abcdefgh.old",
                 ".step-8.abcdefgh.old", "..mine.tmp"):  # fmt: skip
        Path("run", name, "previous").mkdir(parents=True)
    remove_halves(Path("run"), ("step-*",))
    assert sorted(os.listdir("run")) == ["..mine.tmp", "step-8"]
    Path("hf").mkdir()
    Path("hf/..model.safetensors.abcdefgh.tmp.abcdefgh.tmp").write_text("half")
    claim(Path("hf"), CHECKPOINT)


def test_names_that_are_no_utf8_are_written_escaped(here, jpeglm):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy("photo.png", name)
    except OSError:
        pytest.skip("this file system takes no such name")
    code, out, _ = jpeglm("complete", name, "-n", 1, *MODEL, "--json")
    assert code == 0
    written = Path(f"{name[:-4]}-completions/run.json").read_text()
    # Escaped, and no half of a pair, which many readers of JSON refuse.
    assert json.loads(out)["photo"] == json.loads(written)["photo"] == r"caf\xe9.png"
    assert jpeglm("complete", name, "-n", 1, *MODEL)[0] == 0


@pytest.mark.parametrize("name", ["a\x1b[31m\nb.png", "a\x9b\rb.png"], ids=ascii)
def test_a_name_commands_no_terminal(here, jpeglm, name):
    """Nor does it make two lines of one."""
    try:
        shutil.copy("photo.png", name)
    except OSError:
        pytest.skip("this file system takes no such name")
    Path(name + "2").write_text("no picture")
    for words, code in (
        (("complete", name, "-n", 1, *MODEL), 0),
        (("complete", name + "2", *MODEL), 1),
        (("check", name, name + "2"), 1),
    ):
        ended, out, err = jpeglm(*words)
        assert ended == code and not set("\x1b\x9b\r") & set(out + err)
        assert "\\x" in out + err
    assert out.count("\n") == 3


def test_printed_paths_are_quoted(here, jpeglm):
    pytest.importorskip("av")
    Path("my films").mkdir()
    shutil.copy(shipped_checkpoint().parent / "ball.mp4", "my films")
    code, _, err = jpeglm("train-tokenizer", "my films")
    assert code == 1
    command = err.split("run: jpeglm ")[1].split(", and then")[0]
    assert "'my films'" in command
    _, _, err = jpeglm(*shlex.split(command))  # the ball flies too short for the defaults
    assert "of the 1 films in my films" in err and Path("my films-shards").exists()
    Path("my data").mkdir()
    Image.open("photo.png").save("my data/photo.png")
    out = jpeglm("train-tokenizer", "my data", "--out", "my words", "--vocab-size", 300).out
    told = shlex.split(out.split("next: jpeglm ")[1])
    assert told[:4] == ["train", "my data", "--tokenizer", "my words"]


def test_json_knows_no_nan():
    from jpeglm.files import to_json

    value = {"a": float("nan"), "b": [1.5, {"c": float("-inf")}], "d": np.float64("inf"), "e": 1.0}
    text = to_json(value)
    read = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert read == {
        "a": None, "b": [1.5, {"c": None}], "d": None, "e": 1.0,
        "not_finite": {"a": "nan", "b[1].c": "-inf", "d": "inf"},
    }  # fmt: skip
    assert to_json({"a": 0.1}) == '{"a": 0.1}'


def test_a_record_that_is_a_link_makes_nothing_ours(tmp_path):
    """It leads to the record of another folder."""
    other, mine = tmp_path / "other", tmp_path / "mine"
    for folder in (other, mine):
        folder.mkdir()
        (folder / "sample-00.jpg").write_bytes(b"mine")
    record = {"settings": {}, "out": "", "tokens": 1, "files": ["sample-00.jpg"]}
    (other / "run.json").write_text(json.dumps(record))
    assert ours(other, PICTURES) == ["run.json", "sample-00.jpg"]
    (mine / "run.json").symlink_to(other / "run.json")
    assert ours(mine, PICTURES) == []


def test_links_that_lead_to_themselves(here, jpeglm):
    """As a file that is read and as a folder that is written: one sentence, nothing done."""
    (here / "round.jpg").symlink_to("round.jpg")
    (here / "about").symlink_to("about")
    before = sorted(os.listdir(here))
    for words in (
        ["complete", "round.jpg", "--checkpoint", "model", "--out", "new"],
        ["complete", "photo.png", "--checkpoint", "model", "--out", "about"],
        ["generate", "-n", "1", "--checkpoint", "model", "--out", "about"],
        ["prepare", "round.jpg", "new"],
        ["prepare", "photo.png", "about"],
        ["train-tokenizer", "about", "--out", "new"],
        ["export", *MODEL, "--out", "about"],
        ["check", "round.jpg"],
    ):
        code, out, err = jpeglm(*words)
        assert code == 1 and ("round.jpg" in out + err or "about" in err), (words, err)
    assert sorted(os.listdir(here)) == before


def test_the_name_that_was_given_is_the_one_that_is_told(here, jpeglm):
    long = "x" * 300
    code, _, err = jpeglm("generate", "-n", "1", "--checkpoint", "model", "--out", long)
    assert code == 1 and f"{long}: File name too long" in err
    with tarfile.open("set.tar", "w") as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 40
        tar.addfile(info, io.BytesIO(b"eggs, milk, bread" + bytes(23)))
    code, _, err = jpeglm("prepare", "set.tar", "new")
    assert code == 1 and "none of the 1 pictures in set.tar can be used" in err
    assert "set.tar:a.jpg is not a readable picture" in err


INTERRUPTED = """
import runpy, sys
class Signal:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Signal())
runpy.run_module("jpeglm", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["jpeglm.cli", "typer", "jpeglm.cli.training"])
def test_ctrl_c_while_it_is_imported(module):
    command = [sys.executable, "-c", INTERRUPTED, module]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "jpeglm: stopped\n")
