"""The whole road through the command line, on 64 pictures: prepare, train, generate, complete."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import make_codec
from jpeglm.codecs.check import check_file
from jpeglm.tokenizer import Tokenizer

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def road(jpeglm, tmp_path_factory, picture_files):
    """64 crops of the shipped pictures through prepare, train-tokenizer and train."""
    folder = tmp_path_factory.mktemp("road")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(64):
        with Image.open(picture_files[i % len(picture_files)]) as picture:
            side = int(rng.integers(48, min(picture.size)))
            x = int(rng.integers(0, picture.width - side + 1))
            y = int(rng.integers(0, picture.height - side + 1))
            picture.crop((x, y, x + side, y + side)).save(folder / "photos" / f"{i:02d}.png")
    results = {
        "prepare": jpeglm.told(
            "prepare", "photos", "data", "--size", "32", "--crops", 3, cwd=folder
        ),
        "train-tokenizer": jpeglm.told("train-tokenizer", "data", "--vocab-size", 300, cwd=folder),
        "train": jpeglm.told(
            *("train", "data", "--tokenizer", "tokenizer", "--out", "run", "--steps", 30),
            *("--batch-tokens", 1024, "--eval-every", 15, "--save-every", 15, "--samples", 2),
            *("--eval-images", 8, "--threads", 1, "--warmup", 5),
            cwd=folder,
        ),
    }
    return folder, results


def test_prepare_and_tokenizer(road):
    _, results = road
    assert (
        results["prepare"]["pictures"]["train"] + results["prepare"]["pictures"]["validation"] == 64
    )
    assert results["prepare"]["rejected"] == 0
    assert results["train-tokenizer"]["vocab_size"] == 300


def test_training_learns_and_leaves_samples(road):
    folder, _ = road
    rows = [
        json.loads(line)
        for line in (folder / "run" / "metrics.jsonl").read_text().split("\n")
        if line
    ]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] - 0.5
    measured = [row for row in rows if "bits_per_image" in row]
    assert measured and all(row["bits_per_image"] > 0 for row in measured)
    sheets = sorted((folder / "run" / "samples").glob("*.png"))
    assert sheets
    with Image.open(sheets[-1]) as sheet:
        assert sheet.width > 100


def test_generate_writes_valid_files(jpeglm, road):
    folder, _ = road
    result = jpeglm.told("generate", "-n", 5, "--checkpoint", "run/model", "--seed", 3, cwd=folder)
    assert result["pictures"] == 5 and result["tokens_per_second"] > 0
    for i in range(5):
        data = (folder / "samples" / f"sample-{i:02d}.jpg").read_bytes()
        assert check_file(data, {}).valid
    first = {f.name: f.read_bytes() for f in (folder / "samples").glob("*.jpg")}
    jpeglm.told(
        *("generate", "-n", 3, "--batch", 2, "--checkpoint", "run/model", "--seed", 3), cwd=folder
    )
    again = {f.name: f.read_bytes() for f in (folder / "samples").glob("*.jpg")}
    assert set(again) == {f"sample-{i:02d}.jpg" for i in range(3)}
    assert all(first[name] == data for name, data in again.items())


@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_complete_keeps_the_upper_part(jpeglm, road, engine):
    folder, _ = road
    result = jpeglm.told(
        *("complete", "photos/00.png", "--checkpoint", "run/model", "--out", f"out-{engine}"),
        *("--keep", 0.5, "-n", 2, "--engine", engine),
        cwd=folder,
    )
    out = folder / f"out-{engine}"
    assert set(result["files"]) == {file.name for file in out.iterdir()}
    codec = make_codec(result["codec"])
    plain = codec.alphabet("jpeg-symbols")
    streams = {
        name: codec.unwrap((out / name).read_bytes())
        for name in ("original.jpg", "prompt.jpg", "completion-00.jpg", "completion-01.jpg")
    }
    kept = plain.prefix(streams["original.jpg"], codec.units // 2).symbols
    for stream in streams.values():
        assert codec.check(stream).valid
        assert (plain.split(stream)[: len(kept)] == kept).all()
    assert json.loads((out / "run.json").read_text())["tokens"] == result["tokens"]


def test_the_python_interface_is_as_short(road, pictures):
    import jpeglm

    folder, _ = road
    model = jpeglm.load(folder / "run" / "model")
    drawn = model.complete(pictures[0], keep=0.25, n=2)
    assert [image.size for image in drawn.images] == [(32, 32)] * 2


def test_export_loads_in_transformers(jpeglm, road):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from jpeglm.generation.loading import load

    folder, _ = road
    jpeglm.told(
        "export", "--checkpoint", "run/model", "--out", "hf", "--dtype", "float32", cwd=folder
    )
    theirs = AutoModelForCausalLM.from_pretrained(folder / "hf", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder / "hf", local_files_only=True)
    ours = load(folder / "run" / "model", precision="float32")
    assert tokenizer.bos_token_id == ours.tokenizer.bos
    ids = np.array([ours.tokenizer.bos, 5, 40, 200, 280])
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids)[None]).logits[0, -1].numpy()
    np.testing.assert_allclose(ours.engine.add([ids])[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["photos", "clips", "run"])
def test_the_card_of_an_export_shows_the_model_and_its_code_runs(
    jpeglm, road, name, tmp_path, monkeypatch
):
    """As somebody who finds it on a hub: front matter that YAML reads, a picture, code to paste."""
    import yaml

    pytest.importorskip("av") if name == "clips" else None
    source = road[0] / "run" if name == "run" else name
    words = ("export", "--checkpoint", source, "--out", "hf")
    jpeglm.told(*words, "--samples", 2, *(["--license", "mit"] * (name == "run")), cwd=tmp_path)
    first = (tmp_path / "hf" / "README.md").read_text()
    front = yaml.safe_load(first.split("---\n")[1])
    assert front["license"] == ("mit" if name == "run" else "apache-2.0")
    assert front["library_name"] == "transformers" and "jpeglm" in front["tags"]
    assert front["pipeline_tag"] == (
        "video-to-video" if name == "clips" else "unconditional-image-generation"
    )
    with Image.open(tmp_path / "hf" / re.search(r"!\[2 .*\]\((.*)\)", first)[1]) as sheet:
        assert sheet.width > 2 * 64
    (code,) = re.findall(r"```python\n(.*?)```", first, re.DOTALL)
    monkeypatch.chdir(tmp_path / "hf")
    names: dict = {}
    exec(code, names)
    *drawn, end = names["ids"][1:].tolist()
    assert names["matcher"].ids == drawn and names["matcher"].accept(end)
    assert names["matcher"].ended
    (drawn,) = Path().glob("drawn.*")
    codec = Tokenizer.load(".").codec
    assert codec.check(drawn.read_bytes()).valid and drawn.suffix == codec.extension
    drawn.unlink()
    # Again, of what was exported: nothing twice, the licence kept, its sheet replaced.
    jpeglm.told("export", "--checkpoint", "hf", "--out", "again", "--samples", 0, cwd=tmp_path)
    again = (tmp_path / "again" / "README.md").read_text()
    assert again == first.replace(re.search(r"!\[2 .*\n\n", first)[0], "")
    assert not (tmp_path / "again" / "samples.jpg").exists()
    jpeglm.told("export", "--checkpoint", source, "--out", "again", "--samples", 1, cwd=tmp_path)
    assert (tmp_path / "again" / "samples.jpg").exists()


def test_the_card_of_a_run_tells_what_it_is(road):
    """As the hub's library reads it, and with the figures that the run recorded."""
    hub = pytest.importorskip("huggingface_hub")
    folder, results = road
    card = hub.ModelCard.load(folder / "run" / "model" / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "unknown" and data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "unconditional-image-generation" and "jpeg" in data["tags"]
    assert re.findall(r"^## (.*)$", card.text, re.MULTILINE) == [
        "Data", "Training", "Bits per held-out picture", "What to expect"
    ]  # fmt: skip
    told = results["train"]
    best, code = (
        float(found)
        for found in re.findall(r"^\| (?:model|huffman) \| ([\d.]+) \|", card.text, re.MULTILINE)
    )
    assert best == pytest.approx(told["bits_per_image"], abs=0.06) and code > 100
    assert f"{best / code - 1:+.1%}"[:4] in card.text
    assert f"of {told['parameters']:,} parameters" in card.text
    streams = results["prepare"]["streams"]
    assert f"{streams['train']:,} pictures to learn from" in card.text
    assert f"{told['best_step']} steps" in card.text


WITHOUT_NUMBA = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "numba":
            raise ModuleNotFoundError("No module named 'numba'", name="numba")

sys.meta_path.insert(0, Blocker())
from jpeglm.cli import main
main()
"""


@pytest.mark.slow
def test_token_shards_train_and_sample_without_numba(jpeglm, road):
    """A GPU host without numba: token shards, training, and sample pictures on the torch engine."""
    folder, _ = road
    arguments = ("photos", "shards", "--size", 32, "--tokenizer", "tokenizer")
    jpeglm.told("prepare", *arguments, cwd=folder)

    def blocked(*arguments):
        command = [sys.executable, "-c", WITHOUT_NUMBA, *map(str, arguments), "--json"]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder)

    result = blocked(
        *("train", "shards", "--out", "plain", "--steps", 3, "--eval-every", 3, "--samples", 1),
        *("--batch-tokens", 1024, "--eval-images", 4, "--threads", 1),
    )
    assert result.returncode == 0, result.stderr
    assert list((folder / "plain" / "samples").glob("*.png"))
    result = blocked("generate", "--checkpoint", "run/model", "-n", 1)
    assert result.returncode == 1 and "needs numba" in result.stderr
    result = blocked("generate", "--checkpoint", "run/model", "-n", 1, "--engine", "torch")
    assert result.returncode == 0, result.stderr
    assert check_file((folder / "samples" / "sample-00.jpg").read_bytes(), {}).valid
