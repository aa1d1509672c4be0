"""Training killed, stopped and gone on with ends with the losses of a run that never stopped.

As a script (`python test_train_resume.py DATA OUT`) it trains and is killed with SIGKILL halfway
through writing its second checkpoint, ten steps after metrics.jsonl has left the first behind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen, run
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import read_weights
from jpeglm.codecs import make_codec
from jpeglm.config import InputError
from jpeglm.data.loader import load_tokens
from jpeglm.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from jpeglm.training import choice  # noqa: E402
from jpeglm.training.lm import TrainConfig, train  # noqa: E402
from jpeglm.training.start import packed, row_length  # noqa: E402

CODEC = make_codec({"codec": "jpeg", "width": 32, "height": 32})
CONFIG = TrainConfig(
    steps=30,
    model={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    batch_tokens=1024,
    gradient_accumulation=2,
    warmup=3,
    ema=0.9,
    precision="float32",
    log_every=4,
    eval_every=10,
    eval_images=8,
    save_every=10,
    threads=1,
)


def tokenizer() -> Tokenizer:
    """Base symbols without merges."""
    return Tokenizer(CODEC, "jpeg-symbols", np.zeros((0, 2), np.int32))


def make_data(folder: Path) -> Path:
    """60 smooth pictures, about a fifth of them held out."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:02d}.png")
    from jpeglm.data.prepare import prepare
    from jpeglm.data.settings import PrepareConfig

    out = folder.with_name("shards")
    prepare(folder, out, CODEC, PrepareConfig(validation=0.2), workers=1)
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that never stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    result = train(data, tokenizer(), out, CONFIG)
    assert not result["stopped"]
    assert result["steps"] == 30
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in found
    ]


def same_run(out: Path, whole: Path) -> None:
    assert rows(out) == rows(whole)
    for name in ("model", "checkpoints/step-000030"):
        file = f"{name}/model.safetensors"
        assert (out / file).read_bytes() == (whole / file).read_bytes()


def hidden(out: Path) -> list[Path]:
    return [path for path in out.rglob(".*")]


def test_a_whole_run(whole: Path) -> None:
    found = rows(whole)
    trained = [row for row in found if "loss" in row]
    assert [row["step"] for row in trained] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert trained[-1]["loss"] < trained[0]["loss"] - 0.2
    held_out = [row for row in found if "bits_per_image" in row]
    assert [row["step"] for row in held_out] == [0, 10, 20, 30]
    assert held_out[0]["bits_per_pixel"] * 32 * 32 == pytest.approx(held_out[0]["bits_per_image"])
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == [
        "last.json",
        "step-000020",
        "step-000030",
    ]
    assert hidden(whole) == []


def test_bits_agree_with_transformers(whole: Path, data: Path) -> None:
    """OUT/model, loaded by stock transformers, gives the bits that training reported."""
    from transformers import AutoModelForCausalLM

    from jpeglm.data.loader import load_tokens

    model = AutoModelForCausalLM.from_pretrained(whole / "model", dtype=torch.float32)
    tokens = load_tokens(data, tokenizer(), "validation", limit=CONFIG.eval_images)
    bits = 0.0
    for number in range(len(tokens)):
        ids = torch.from_numpy(tokens.ids(number).astype(np.int64))[None]
        with torch.no_grad():
            log2 = model(input_ids=ids).logits[0, :-1].log_softmax(-1) / np.log(2)
        bits -= float(log2.gather(1, ids[0, 1:, None]).sum())
    best = min(row["bits_per_image"] for row in rows(whole) if "bits_per_image" in row)
    # The folder holds bfloat16, which is off by up to 0.4 % a weight.
    assert bits / len(tokens) == pytest.approx(best, rel=2e-3)


@pytest.mark.slow
def test_killed_then_stopped_then_finished(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed = run([sys.executable, __file__, str(data), str(out)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert json.loads((out / "checkpoints/last.json").read_text())["step"] == 10
    assert rows(out)[-1]["step"] == 20  # beyond the checkpoint: these rows must go
    assert hidden(out)  # the half-written checkpoint

    def terminate(done: int, total: int | None, note: str) -> None:
        if done == 16:
            os.kill(os.getpid(), signal.SIGTERM)

    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    result = train(data, tokenizer(), out, CONFIG, progress=terminate, say=said.append)
    assert result["stopped"]
    assert result["steps"] == 16
    assert "resuming from step 10" in said[1]
    assert signal.getsignal(signal.SIGTERM) is before
    assert hidden(out) == []

    assert not train(data, tokenizer(), out, CONFIG)["stopped"]
    same_run(out, whole)

    # What a kill leaves at the very end: a draft in a draft, and a checkpoint too many.
    kept = sorted(path.name for path in (out / "checkpoints").iterdir())
    shutil.copytree(out / "model", out / "checkpoints/..step-000030.abcdefgh.tmp.abcdefgh.tmp")
    shutil.copytree(out / "checkpoints/step-000020", out / "checkpoints/step-000010")
    assert not train(data, tokenizer(), out, CONFIG)["stopped"]
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == kept

    # A finished run has nothing left to do, and a stop between log rows left no trace.
    weights = out / "checkpoints/step-000030/model.safetensors"
    written = weights.stat().st_mtime_ns
    assert train(data, tokenizer(), out, CONFIG)["steps"] == 30
    assert weights.stat().st_mtime_ns == written
    same_run(out, whole)


FULL_DISK = """
import resource, sys
from dataclasses import replace
from pathlib import Path
import torch
from jpeglm.config import InputError
from jpeglm.training.lm import train
from jpeglm.training.run import save_state
from tests.integration.test_train_resume import CONFIG, tokenizer

often = replace(CONFIG, log_every=1, eval_every=100, save_every=100)
data, home = Path(sys.argv[1]), Path(sys.argv[2])
for word in sys.argv[3:]:
    name, limit = word.split("=")
    config = often if name in ("metrics", "tensorboard") else CONFIG
    limits = int(limit), resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    try:
        train(data, tokenizer(), home / name, config)
    except InputError as error:
        print(name, error)
try:  # a tensor larger than what a file buffers: torch then raises an error of its own
    save_state(home / "tensor", {"a": torch.zeros(100_000)})
except OSError as error:
    print("tensor", error.strerror, home / "tensor")
"""


@pytest.mark.slow
def test_a_disk_that_is_full_is_one_sentence(data: Path, whole: Path, tmp_path: Path) -> None:
    """Whatever finds no room: a checkpoint's state, weights, the log, TensorBoard's log. Nothing
    half-made stays, and the same command goes on."""
    last = whole / "checkpoints/step-000030"
    weights = (last / "model.safetensors").stat().st_size
    config = (whole / "config.json").stat().st_size
    limits = {
        "state": (weights + (last / "training_state.pt").stat().st_size) // 2,
        "weights": weights - 1,
        "metrics": config + 100,
        "tensorboard": 2 * config,
    }
    words = [f"{name}={limit}" for name, limit in limits.items()]
    command = [sys.executable, "-W", "ignore", "-c", FULL_DISK, str(data), str(tmp_path), *words]
    root = Path(__file__).resolve().parents[2]
    done = run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    told = done.stdout.splitlines()
    assert [line.split()[0] for line in told] == [*limits, "tensor"]
    for line, name in zip(told, [*limits, "tensor"]):
        assert str(tmp_path / name) in line and "too large" in line.lower()
        assert "config.json" not in line
        assert hidden(tmp_path / name) == []
    for name in ("state", "weights"):
        assert not train(data, tokenizer(), tmp_path / name, CONFIG)["stopped"]
        same_run(tmp_path / name, whole)


def test_other_settings_are_refused(data: Path, whole: Path) -> None:
    with pytest.raises(InputError, match=r"warmup 3 \(now 60\)"):
        train(data, tokenizer(), whole, replace(CONFIG, warmup=60))
    larger = {**CONFIG.model, "intermediate_size": 96}
    with pytest.raises(InputError, match=r"model .*'intermediate_size': 64.*now .*96"):
        train(data, tokenizer(), whole, replace(CONFIG, model=larger))
    with pytest.raises(InputError, match="already holds a run"):
        train(data, tokenizer(), whole, CONFIG, resume=False)
    train(data, tokenizer(), whole, replace(CONFIG, keep=3))  # no loss depends on it


def test_a_longer_budget_and_another_rhythm_go_on(data: Path, whole: Path, tmp_path: Path) -> None:
    """What was done stays as it was; the learning rate follows the new budget."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    changed = replace(CONFIG, steps=0, epochs=0.0, minutes=1000.0, eval_every=3, log_every=1)
    said: list[str] = []

    def stop(done: int, total: int | None, note: str) -> None:
        if done == 33:
            os.kill(os.getpid(), signal.SIGTERM)

    result = train(data, tokenizer(), out, changed, progress=stop, say=said.append)
    assert result["stopped"] and result["steps"] == 33 and "resuming from step 30" in said[1]
    found = rows(out)
    assert found[: len(rows(whole))] == rows(whole)
    assert [row["step"] for row in found[len(rows(whole)) :]] == [31, 32, 33, 33]
    rates = [row["learning_rate"] for row in found if "loss" in row]
    assert rates[-1] > 2 * rates[-4]  # of steps 33 and 30
    again = train(data, tokenizer(), out, replace(CONFIG, steps=35))
    assert not again["stopped"] and again["steps"] == 35
    assert json.loads((out / "config.json").read_text())["settings"]["steps"] == 35


def test_sampler_leaves_the_losses_alone(data: Path, whole: Path, tmp_path: Path) -> None:
    def draw(model: Any, spelling: Tokenizer, n: int, seed: int) -> Image.Image:
        assert n == 2
        assert not model.training
        assert torch.rand(3).shape == (3,)
        return Image.new("RGB", (8, 4), (9, 9, 9))

    changed = replace(CONFIG, samples=2)
    train(data, tokenizer(), tmp_path / "run", changed, sampler=draw)
    assert rows(tmp_path / "run") == rows(whole)
    sheets = sorted((tmp_path / "run/samples").iterdir())
    assert [sheet.name for sheet in sheets] == [f"step-0000{step}.png" for step in (10, 20, 30)]


def test_chunks_bfloat16_and_a_budget_in_minutes(data: Path, tmp_path: Path) -> None:
    changed = replace(
        CONFIG,
        steps=0,
        minutes=0.02,
        packing="chunks",
        max_length=128,
        precision="bfloat16",
        activation_checkpointing=True,
        ema=0.0,
    )
    result = train(data, tokenizer(), tmp_path / "run", changed)
    assert not result["stopped"]
    assert 1.2 <= result["seconds"] < 10
    trained = [row for row in rows(tmp_path / "run") if "loss" in row]
    assert trained[-1]["learning_rate"] < replace(CONFIG, preset="2m").peak


@pytest.mark.parametrize("verb", ["train", "train-vqvae"])
def test_ctrl_c_is_not_a_success(verb: str, data: Path, tmp_path: Path) -> None:
    """A script's next command does not begin, and the same one goes on."""
    from ..unit.conftest import until  # a script has no packages round it

    out = tmp_path / "run"
    options = ["--preset", "1m", "--save-every", "100000"] if verb == "train" else ["--size", "32"]
    words = [verb, data, "--out", out, "--steps", "100000", "--log-every", "1", *options]
    words = [sys.executable, "-m", "jpeglm", *map(str, words)]
    process = Popen(
        words, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True,
        # A shell's background jobs ignore it, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    log = out / "metrics.jsonl"
    until(lambda: process.poll() is not None or (log.exists() and '"loss"' in log.read_text()))
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in error, error
    last = error.splitlines()[-1]
    assert last.startswith("jpeglm: stopped after step ") and "same command resumes" in last
    step = int(last.split()[4].rstrip(";"))
    words[words.index("100000")] = str(step + 1)
    finished = run(words, capture_output=True, text=True)
    assert finished.returncode == 0 and f"resuming from step {step}" in finished.stderr


def test_rows_of_several_pictures_stopped_and_gone_on_with(data: Path, tmp_path: Path) -> None:
    changed = replace(CONFIG, packing="rows", steps=12, save_every=5)
    train(data, tokenizer(), tmp_path / "whole", changed)
    asked = tmp_path / "run"

    def stop(done: int, total: int | None, note: str) -> None:
        if done == 8:
            os.kill(os.getpid(), signal.SIGINT)

    assert train(data, tokenizer(), asked, changed, progress=stop)["stopped"]
    train(data, tokenizer(), asked, changed)
    assert rows(asked) == rows(tmp_path / "whole")
    told = json.loads((asked / "config.json").read_text())
    length = told["model"]["max_position_embeddings"]
    lengths = told["data"]["tokens"] / told["data"]["pictures"]
    assert length % 8 == 0 and min(4 * lengths, 1024) - 8 <= length <= 1024


@pytest.mark.parametrize(("device", "packing"), [("cuda", "rows"), ("cpu", "pictures")])
@pytest.mark.parametrize("batch", [1024, 4096, 32_768])
def test_rows_fill_a_batch(device, packing, batch) -> None:
    config = replace(CONFIG, batch_tokens=batch)
    accelerator: Any = SimpleNamespace(device=SimpleNamespace(type=device))
    assert packed(config, accelerator).packing == packing
    for least in (64, 640, 1024, 5120):
        for wanted in (100.0, 816.0, 2400.0):
            length = row_length(least, wanted, config)
            assert length >= least
            if least <= batch:
                assert min(wanted, batch) - 8 <= length <= batch
                assert batch % length <= 8 * (batch // length)


@pytest.mark.parametrize("packing", ["pictures", "rows"])
def test_pictures_that_are_left_out_are_told(data: Path, tmp_path: Path, packing: str) -> None:
    """How many, and the length that takes them all, which then has nothing to tell."""
    lengths = load_tokens(data, tokenizer()).lengths
    short = int(np.median(lengths))
    told: list[str] = []
    changed = replace(CONFIG, steps=1, warmup=1, eval_images=0, packing=packing, max_length=short)
    result = train(data, tokenizer(), tmp_path / "short", changed, say=told.append)
    words = f"{(lengths > short).sum()} of {len(lengths)} training pictures have more than {short}"
    assert any(words in line for line in told) and any(words in line for line in result["warnings"])
    longest = f"--max-length {lengths.max()} "
    assert any(longest in line for line in result["warnings"])
    changed = replace(changed, max_length=int(lengths.max()))
    assert not train(data, tokenizer(), tmp_path / "long", changed)["warnings"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [({}, "no end"), ({"steps": 1, "epochs": 1}, "both"), ({"steps": 1, "preset": "x"}, "preset"),
     ({"steps": 1, "precision": "half"}, "precision"), ({"steps": 1, "beta2": 1}, "beta2"),
     ({"steps": 1, "keep": 0}, "keep"), ({"minutes": float("nan")}, "minutes")],
)  # fmt: skip
def test_errors_name_the_setting(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        TrainConfig(**changes)


def test_begins_with_a_checkpoint(data: Path, whole: Path, tmp_path: Path) -> None:
    """Where the checkpoint stands, in its shape; stopped and gone on with, the same run."""
    begun = replace(CONFIG, model={}, init=str(whole / "model"), steps=20, learning_rate=1e-9)
    result = train(data, tokenizer(), tmp_path / "still", begun)
    best = min(row["bits_per_image"] for row in rows(whole) if "bits_per_image" in row)
    assert result["bits_per_image"] == pytest.approx(best, rel=2e-3)  # it is in bfloat16
    shape = json.loads((tmp_path / "still" / "config.json").read_text())["model"]
    assert shape == json.loads((whole / "config.json").read_text())["model"]

    moving = replace(begun, learning_rate=3e-3)
    result = train(data, tokenizer(), tmp_path / "run", moving)
    assert result["bits_per_image"] < 0.99 * best
    assert str(whole / "model") in (tmp_path / "run" / "model" / "README.md").read_text()
    half = {"step": 10, "folder": "step-000010"}
    (tmp_path / "run" / "checkpoints" / "last.json").write_text(json.dumps(half))
    weights = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    train(data, tokenizer(), tmp_path / "run", moving)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == weights


def test_a_checkpoint_of_other_tokens_is_refused(data: Path, whole: Path, tmp_path: Path) -> None:
    other = Tokenizer(CODEC, "jpeg-symbols", np.array([[1, 2]], np.int32))
    begun = replace(CONFIG, model={}, init=str(whole / "model"))
    with pytest.raises(InputError, match="give its own: --tokenizer"):
        train(data, other, tmp_path / "run", begun)
    with pytest.raises(InputError, match="there is no checkpoint folder"):
        train(data, tokenizer(), tmp_path / "run", replace(begun, init=str(tmp_path / "none")))
    cut = shutil.copytree(whole / "model", tmp_path / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1000])
    with pytest.raises(InputError, match=f"{cut} is not a complete safetensors file"):
        train(data, tokenizer(), tmp_path / "run", replace(begun, init=str(cut.parent)))


def test_begins_with_a_checkpoint_and_more_layers(data: Path, whole: Path, tmp_path: Path) -> None:
    """The same bits at first, to the last digit; then the added layers learn, too."""
    out, model = tmp_path / "run", whole / "model"
    begun = replace(CONFIG, model={}, init=str(model), steps=20, learning_rate=3e-3)
    deeper = replace(begun, model={"num_hidden_layers": 5})
    result = train(data, tokenizer(), out, deeper)
    train(data, tokenizer(), tmp_path / "as it was", replace(begun, steps=1))
    first, other = (rows(folder)[0] for folder in (out, tmp_path / "as it was"))
    assert first["step"] == other["step"] == 0
    assert first["bits_per_image"] == pytest.approx(other["bits_per_image"], rel=1e-6)
    assert result["bits_per_image"] < 0.99 * first["bits_per_image"]
    shape = json.loads((out / "model" / "config.json").read_text())
    found = read_weights(out / "model", shape)
    silent = [name for name in found if name.endswith(("o_proj.weight", "down_proj.weight"))]
    assert len(silent) == 10
    assert all(found[name].any() for name in silent)
    assert "5 layers" in (out / "model" / "README.md").read_text()
    # Gone on with from the middle it is the same run: nothing is deepened twice.
    (out / "checkpoints" / "last.json").write_text('{"step": 10, "folder": "step-000010"}')
    weights = (out / "model" / "model.safetensors").read_bytes()
    train(data, tokenizer(), out, deeper)
    assert (out / "model" / "model.safetensors").read_bytes() == weights


def test_minutes_are_measured_with_the_layers_that_are_added(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []
    speed = choice.speed

    def measured(config: TrainConfig, shape: dict[str, Any], *rest: Any) -> float:
        timed.append(shape["num_hidden_layers"])
        return speed(config, shape, *rest)

    monkeypatch.setattr(choice, "speed", measured)
    deeper = {"num_hidden_layers": 5}
    begun = replace(CONFIG, model=deeper, init=str(whole / "model"), steps=0, minutes=0.02)
    train(data, tokenizer(), tmp_path / "run", begun)
    assert timed == [5]


@pytest.mark.parametrize(
    ("model", "message"),
    [({"hidden_size": 64}, "cannot set hidden_size"),
     ({"num_hidden_layers": 4, "rope_theta": 1e6}, "cannot set rope_theta"),
     ({"num_hidden_layers": 1}, "have 2 layers; a run can add layers and take none away"),
     ({"num_hidden_layers": "four"}, "whole number"),
     ({"num_hidden_layers": 10**6}, "1024 at most")],
)  # fmt: skip
def test_a_checkpoint_gets_layers_and_nothing_else(
    data: Path, whole: Path, tmp_path: Path, model: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        begun = replace(CONFIG, model=model, init=str(whole / "model"))
        train(data, tokenizer(), tmp_path / "run", begun)
    assert not (tmp_path / "run").exists()


def test_schedule() -> None:
    config = TrainConfig(steps=100, learning_rate=1.0, warmup=10)
    assert config.rate(0, 0) == pytest.approx(0.1)
    assert config.rate(50, 0.5) == pytest.approx(0.55)
    assert config.rate(99, 1) == pytest.approx(0.1)


def _die_in_second_save() -> None:
    save, calls = torch.save, 0

    def dying(values: Any, file: BinaryIO) -> None:
        nonlocal calls
        calls += 1
        save(values, file)
        if calls == 2:
            file.truncate(file.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = dying


if __name__ == "__main__":
    _die_in_second_save()
    train(Path(sys.argv[1]), tokenizer(), Path(sys.argv[2]), CONFIG)
