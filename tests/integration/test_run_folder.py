"""A run folder that explains itself: step 0, baselines, README.md, curves."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jpeglm.config import InputError, install
from jpeglm.data.open import open_data
from jpeglm.data.prepare import prepare
from jpeglm.data.settings import PrepareConfig
from jpeglm.evaluation.inputs import chosen_split
from jpeglm.evaluation.likelihood import model_bits, ratio_interval
from jpeglm.folders import only_one
from jpeglm.generation.loading import load
from jpeglm.places import shipped_checkpoint
from jpeglm.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from jpeglm.training.curves import Curves  # noqa: E402
from jpeglm.training.lm import TrainConfig, train  # noqa: E402
from jpeglm.training.pages import LINE, WIDTH  # noqa: E402
from jpeglm.training.validation import error_of_ratio  # noqa: E402

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 64,
}
CONFIG = TrainConfig(
    steps=4, model=TINY, batch_tokens=2048, warmup=1, precision="float32", log_every=1,
    eval_every=2, eval_images=6, save_every=2, samples=0, threads=1,
)  # fmt: skip
PHOTOS = Tokenizer.load(shipped_checkpoint("photos"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, picture_files: list[Path]) -> Path:
    """Crops of photographs, as the shipped model's codec has them."""
    home = tmp_path_factory.mktemp("run-folder")
    (home / "photos").mkdir()
    for file in picture_files[:4]:
        with Image.open(file) as picture:
            for i in range(6):
                box = (16 * i, 8 * i, 16 * i + 128, 8 * i + 128)
                picture.crop(box).save(home / "photos" / f"{file.stem}-{i}.png")
    settings = PrepareConfig(crops=2, validation=0.3)
    prepare(home / "photos", home / "data", PHOTOS.codec, settings, workers=1)
    return home / "data"


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    out = data.parent / "run"
    train(data, PHOTOS, out, CONFIG)
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_step_0_stands_beside_the_files_and_the_shipped_model(run: Path, data: Path) -> None:
    first = rows(run)[0]
    assert first["step"] == 0
    ids = PHOTOS.vocab_size
    assert first["validation_loss"] == pytest.approx(np.log(ids), rel=0.02)
    streams = [row.stream for row in open_data(data).streams("validation")]
    chosen = np.sort(np.random.default_rng(0).permutation(len(streams))[:6])
    kept = [streams[i] for i in chosen]
    scans = [8 * len(PHOTOS.codec.scan(stream)) for stream in kept]
    assert first["huffman_bits_per_image"] == np.mean(scans)
    own = first["bits_per_image"] / np.mean(scans) - 1
    assert first["against_huffman"] == pytest.approx(own)
    bits, _, _ = model_bits(load("photos", precision="float32"), kept)
    assert first["photos_bits_per_image"] == pytest.approx(bits.mean(), rel=1e-3)


def test_the_shipped_model_is_no_rival_of_itself(data: Path, tmp_path: Path) -> None:
    """And a run that makes the weights it begins with worse is seen to, and keeps them."""
    begun = replace(CONFIG, model={}, init="photos", learning_rate=0.3)
    result = train(data, PHOTOS, tmp_path / "run", begun)
    first, *others = (row for row in rows(tmp_path / "run") if "bits_per_image" in row)
    assert set(Curves([first]).others) == {"huffman"}
    assert all(row["bits_per_image"] > 1.5 * first["bits_per_image"] for row in others)
    assert (result["best_step"], result["bits_per_image"]) == (0, first["bits_per_image"])
    text = (tmp_path / "run" / "README.md").read_text()
    assert "| step 0 (the weights of photos, best, in model/) |" in text
    kept, ours = (
        load(place, precision="float32").checkpoint.weights["model.norm.weight"]
        for place in ("photos", tmp_path / "run")
    )
    assert (kept == ours).all()


def test_random_weights_are_nobodys_model(data: Path, tmp_path: Path) -> None:
    result = train(data, PHOTOS, tmp_path / "run", replace(CONFIG, learning_rate=3.0))
    measured = [row for row in rows(tmp_path / "run") if "bits_per_image" in row]
    assert min(measured, key=lambda row: row["bits_per_image"])["step"] == 0
    assert result["best_step"] in (2, 4)


def test_the_readme_tells_all_and_its_command_goes_on(jpeglm: Any, run: Path, data: Path) -> None:
    text = (run / "README.md").read_text()
    found = rows(run)
    last = [row["bits_per_image"] for row in found if "bits_per_image" in row][-1]
    assert "Step 4 of 4" in text and "finished" in text
    assert f"| step 4 (best, in model/) | {last:,.1f} |" in text
    assert f"| photos | {found[0]['photos_bits_per_image']:,.1f} |" in text
    sources = json.loads((data / "dataset.json").read_text())["pictures"]["validation"]
    assert f"6 streams (crops of {min(6, sources)} pictures)" in text or sources >= 6
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    begun = next(line for line in lines if "train" in line.split()[1])
    assert not jpeglm(*shlex.split(begun)[1:-2], "--samples", 0, "--threads", 1).code
    assert rows(run) == found  # the settings were the same ones; nothing was left to do
    for name in ("curves.png", "model", "checkpoints", "metrics.jsonl", "tensorboard"):
        assert (run / name).exists() and name in text
    with Image.open(run / "curves.png") as plot:
        assert plot.width > 800


def test_the_report_is_one_file(run: Path, data: Path, tmp_path: Path) -> None:
    """All that README.md says, its pictures inside; a file's name that is HTML is text."""
    out = tmp_path / "<script>alert(1)</script>"
    train(
        data, PHOTOS, out, replace(CONFIG, samples=2), sampler=lambda *_: Image.new("RGB", (80, 60))
    )
    page = (out / "report.html").read_text()
    assert page.count("<table>") == 2 and "<script" not in page
    assert re.findall(r'(?:src|href)="(.{0,14})', page) == ["data:image/png", "data:image/jpe"]
    plain = [
        line for line in (out / "README.md").read_text().splitlines() if "best, in model" in line
    ]
    assert all(cell.strip() in page for cell in plain[0].split("|"))
    with (
        Image.open(out / "samples.jpg") as sheets,
        Image.open(out / "samples/step-000004.png") as one,
    ):
        count = len(list((out / "samples").iterdir()))
        assert sheets.height == count * (LINE + round(one.height * WIDTH / one.width))


def test_what_a_run_was_trained_on_is_not_measured_unasked(
    jpeglm: Any, data: Path, tmp_path: Path
) -> None:
    photos, out = data.parent / "photos", tmp_path / "run"
    train(photos, PHOTOS, out, replace(CONFIG, steps=1, eval_images=1000))
    held_out = json.loads((out / "config.json").read_text())["data"]["validation_pictures"]
    words = ("evaluate", "likelihood", photos, "--limit", 1000, "--checkpoint")
    for checkpoint in (out, out / "model"):
        told = jpeglm.told(*words, checkpoint)
        assert (told["split"], told["pictures"]) == ("validation", held_out)
    assert jpeglm.told(*words, out, "--split", "all")["pictures"] > held_out
    assert chosen_split(data.parent / "photos", None, Path("photos")) == "all"


def test_notes_of_the_users_stay(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(data, PHOTOS, out, replace(CONFIG, steps=2))
    (out / "README.md").write_text("# My notes\n")
    said: list[str] = []
    train(data, PHOTOS, out, CONFIG, say=said.append)
    assert (out / "README.md").read_text() == "# My notes\n"
    assert sum("README.md is not ours" in line for line in said) == 1


def test_a_run_of_an_older_version_goes_on(data: Path, run: Path, tmp_path: Path) -> None:
    """One without step 0, intervals, and what config.json has learnt to say since."""
    out = Path(shutil.copytree(run, tmp_path / "run"))
    for name in ("README.md", "curves.png"):
        (out / name).unlink()
    new = ("against_huffman", "error")
    old = [{k: v for k, v in row.items() if k not in new} for row in rows(out)[1:]]
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    record = json.loads((out / "config.json").read_text())
    del record["tokenizer_path"], record["data"]["validation_sources"]
    (out / "config.json").write_text(json.dumps(record))
    train(data, PHOTOS, out, replace(CONFIG, steps=6))
    found = rows(out)
    assert found[: len(old)] == old and found[-1]["step"] == 6
    assert "step 6 (best, in model/)" in (out / "README.md").read_text()
    assert (out / "curves.png").exists()


def test_what_was_killed_before_its_first_checkpoint_measures_step_0_once(
    data: Path, run: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(out / "checkpoints")
    train(data, PHOTOS, out, CONFIG)
    assert [row["step"] for row in rows(out)] == [row["step"] for row in rows(run)]


def test_without_matplotlib_a_run_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said: list[str] = []
    train(data, PHOTOS, tmp_path / "run", CONFIG, say=said.append)
    told = [line for line in said if "curves.png" in line]
    assert len(told) == 1 and install("train") in told[0]
    assert "![" not in (tmp_path / "run" / "README.md").read_text()


def test_the_interval_is_the_bootstraps() -> None:
    rng = np.random.default_rng(0)
    files = rng.lognormal(8, 0.5, 400)
    bits = files * rng.normal(0.7, 0.1, 400)
    low, high = ratio_interval(bits, files)
    half = error_of_ratio(bits, files, 400)
    assert half == pytest.approx((high - low) / 2, rel=0.1)
    # Ten equal crops of each picture tell no more than one.
    crops = np.repeat(bits, 10), np.repeat(files, 10)
    assert error_of_ratio(*crops, 400) == pytest.approx(half, rel=0.01)
    assert error_of_ratio(bits[:1], files[:1], 1) is None


def test_the_curve_in_the_terminal() -> None:
    def row(step: int, bits: float, **more: float) -> dict[str, Any]:
        return {"step": step, "bits_per_image": bits, **more}

    curves = Curves([
        row(0, 9000, huffman_bits_per_image=3000.0), row(50, 2800), row(100, 2000),
    ])  # fmt: skip
    assert curves.text(width=21, height=6) == [
        "bits a held-out picture",
        "    3,000 |^ - - - - - - - - - -  huffman",
        "          |          o",
        "          |",
        "          |",
        "          |",
        "    2,000 |                    o",
        "          +---------------------",
        "           0           100 steps",
        "^ step 0: 9,000",
    ]
    assert Curves([row(0, 9000)]).text() == []
    begun = Curves([row(0, 2100), row(50, 2400), row(100, 2000)])
    assert "^" not in "".join(begun.text())


@pytest.mark.slow
def test_minutes_alone_choose_for_this_machine(jpeglm: Any, data: Path, tmp_path: Path) -> None:
    """Size, warm-up, a tokenizer; what it says is what it does; a run that goes on keeps them."""
    words = ("train", data, "--minutes", 0.05, "--samples", 0, "--threads", 1, "--eval-images", 4)
    ended = jpeglm(*words, cwd=tmp_path)
    assert ended.code == 0, ended.err
    out = tmp_path / "runs" / "train"
    record = json.loads((out / "config.json").read_text())
    settings, about = record["settings"], record["advice"]
    assert settings["preset"] == "1m" and 1 <= settings["warmup"] < 20
    assert about["tokens"] == pytest.approx(about["tokens_per_second"] * 3)
    assert f"size 1m ({record['parameters'] / 1e6:.1f} M parameters)" in ended.err
    assert "a tokenizer of" in ended.err and (tmp_path / "runs/train-tokenizer").is_dir()
    assert f"steps of warm-up {settings['warmup']}" in (out / "README.md").read_text()

    # What follows is a table for people, with the curve and where things lie.
    shown = ("against huffman", "step 0 (random weights)", "photos", "finished:",
             "runs/train/metrics.jsonl", "tensorboard --logdir runs/train/tensorboard")  # fmt: skip
    for word in shown:
        assert word in ended.out, ended.out
    again = jpeglm(*words, "--minutes", 0.06, cwd=tmp_path)
    assert again.code == 0, again.err
    kept = json.loads((out / "config.json").read_text())
    assert kept["advice"] == about and kept["settings"]["warmup"] == settings["warmup"]
    assert "size 1m" not in again.err and "resuming" in again.err
    assert "--tokenizer" not in (out / "README.md").read_text()


def test_two_runs_never_share_a_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    config = replace(CONFIG, steps=1)
    with only_one(out, "training"), pytest.raises(InputError, match="another training is writing"):
        train(data, PHOTOS, out, config)
    assert not list(out.iterdir())
    train(data, PHOTOS, out, config)
    with only_one(out, "training"):
        pass


def test_a_budget_in_steps_chooses_nothing(data: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1, model={"num_hidden_layers": 1}, warmup=None)
    train(data, PHOTOS, tmp_path / "run", config)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert (settings["preset"], settings["warmup"]) == ("2m", 100)


def test_warnings_are_said_once_and_kept(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = replace(CONFIG, warmup=50, eval_images=1)
    result = train(data, PHOTOS, tmp_path / "run", config, say=said.append)
    for words in ("outlasts the budget", "never peaked", "1 held-out picture cannot tell"):
        assert sum(words in line for line in said) == 1, (words, said)
    text = (tmp_path / "run" / "README.md").read_text()
    for line in result["warnings"]:
        assert f"- {line}" in text
    assert ["never peaked" in line for line in result["warnings"]].count(True) == 1
    begun = replace(CONFIG, model={}, init="photos", learning_rate=0.3)
    result = train(data, PHOTOS, tmp_path / "begun", begun)
    assert any("better than the weights of photos" in line for line in result["warnings"])
    assert "better than the weights" in (tmp_path / "begun" / "README.md").read_text()
