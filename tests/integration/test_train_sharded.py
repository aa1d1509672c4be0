"""FSDP2 over gloo: shares on 2 and 4 processes train what one process trains, and go on from each
other's checkpoints."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from jpeglm.config import InputError  # noqa: E402
from jpeglm.training.lm import TrainConfig, train  # noqa: E402
from tests.integration.launched import SHAPE, job, launch, rows, tokenizer  # noqa: E402

ADAMW = TrainConfig(
    optimizer="adamw",
    steps=30,
    model=SHAPE,
    batch_tokens=1024,
    gradient_accumulation=2,
    warmup=2,
    precision="float32",
    log_every=1,
    eval_every=10,
    eval_images=7,
    save_every=10,
    threads=1,
)
UNTIED = replace(ADAMW, model={**SHAPE, "tie_word_embeddings": False})
MUON = replace(ADAMW, optimizer="muon", ema=0.9)
KINDS = {"adamw": ADAMW, "untied": UNTIED, "muon": MUON}


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of one process, made when first asked for."""
    home = tmp_path_factory.mktemp("one")

    def made(kind: str) -> Path:
        if not (home / kind).exists():
            train(data, tokenizer(), home / kind, KINDS[kind])
        return home / kind

    return made


@pytest.fixture(scope="module")
def sharded(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each kind of run by two processes under FSDP."""
    home = tmp_path_factory.mktemp("two")
    outs = {kind: home / kind for kind in KINDS}
    jobs = [job(data, outs[k], replace(c, strategy="fsdp")) for k, c in KINDS.items()]
    succeeded(launch(2, *jobs))
    return outs


def succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr[-3000:]


def settings(out: Path) -> dict[str, Any]:
    return json.loads((out / "config.json").read_text())


def agree(out: Path, other: Path, rel: float = 1e-4) -> None:
    """Losses and held-out bits of two runs, and nearly their norms: Muon may orthogonalise in
    bfloat16, which enlarges what rounding does to a gradient."""
    mine, theirs = rows(out), rows(other)
    assert len(mine) == len(theirs) > 1
    for a, b in zip(mine, theirs):
        assert a.keys() == b.keys()
        for key in a:
            near = 10 * rel if key == "gradient_norm" else rel
            assert a[key] == pytest.approx(b[key], rel=near), (a["step"], key)


def go_on_from(step: int, run: Path, out: Path) -> Path:
    """A copy of a run that goes on from an earlier checkpoint."""
    shutil.copytree(run, out)
    pointer = {"step": step, "folder": f"step-{step:06d}"}
    (out / "checkpoints/last.json").write_text(json.dumps(pointer))
    return out


def weights(out: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_half_the_weights_equal_one(
    kind: str, one: Callable[[str], Path], sharded: dict[str, Path]
) -> None:
    """Tied embeddings are one tensor, evaluations that are not the best leave no weights gathered,
    Muon orthogonalises whole matrices, averages are taken of shares."""
    whole, split = one(kind), sharded[kind]
    assert (settings(split)["processes"], settings(split)["strategy"]) == (2, "fsdp")
    assert rows(split)[-1]["step"] == 30 and len(rows(split)) == 34
    agree(split, whole)
    mine, theirs = weights(split), weights(whole)
    assert mine.keys() == theirs.keys() and ("lm_head.weight" in mine) == (kind == "untied")
    for name, value in mine.items():  # in bfloat16
        torch.testing.assert_close(value, theirs[name], atol=6e-3, rtol=1e-2)


def test_layers_that_are_added_begin_alike_in_shares(
    data: Path, one: Callable[[str], Path], tmp_path: Path
) -> None:
    deeper = replace(
        ADAMW, model={"num_hidden_layers": 3}, init=str(one("adamw") / "model"), steps=4
    )
    train(data, tokenizer(), tmp_path / "whole", deeper)
    succeeded(launch(2, job(data, tmp_path / "split", replace(deeper, strategy="fsdp"))))
    agree(tmp_path / "split", tmp_path / "whole")


def test_shares_are_what_a_process_holds(sharded: dict[str, Path]) -> None:
    """A checkpoint's files hold half the weights each, and nothing pickled."""
    from safetensors import safe_open

    folder = sharded["muon"] / "checkpoints/step-000030"
    assert sorted(path.suffix for path in folder.iterdir()) == [".pt", *[".safetensors"] * 2]
    name, held = "model.model.layers.1.mlp.up_proj.weight", []
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            assert {key.split(".")[0] for key in sorted(opened.keys())} == {
                "model",
                "optimizer",
                "ema",
            }
            held.append(opened.get_slice(name).get_shape())
    assert held == [[32, 32], [32, 32]]
    state = torch.load(folder / "training_state.pt", weights_only=True)
    assert "optimizer" not in state and len(state["windows"]) == 2


def test_four_processes(data: Path, one: Callable[[str], Path], tmp_path: Path) -> None:
    """In two replicas (HSDP), with activations computed twice; and all in one."""
    hybrid = replace(MUON, strategy="fsdp", replicas=2, activation_checkpointing=True)
    line = replace(UNTIED, strategy="fsdp")
    succeeded(launch(4, job(data, tmp_path / "hybrid", hybrid), job(data, tmp_path / "line", line)))
    agree(tmp_path / "hybrid", one("muon"))
    agree(tmp_path / "line", one("untied"))
    said = json.loads((tmp_path / "hybrid" / "rank-0.json").read_text())["said"]
    assert said[0].startswith("4 processes, fsdp over 2 in 2 replicas on cpu, float32, muon")
    others = [json.loads((tmp_path / f"hybrid/rank-{n}.json").read_text()) for n in (1, 2, 3)]
    assert not any(other["said"] for other in others)


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, one of which is killed in the sixteenth step."""
    out = tmp_path_factory.mktemp("killed") / "run"
    asked = job(data, out, replace(MUON, strategy="fsdp"), kill=[1, 15])
    assert launch(2, asked).returncode != 0
    last = json.loads((out / "checkpoints/last.json").read_text())
    assert last["step"] == 10 and rows(out)[-1]["step"] >= 14
    return out


def test_killed_and_gone_on_with(
    data: Path, killed: Path, sharded: dict[str, Path], tmp_path: Path
) -> None:
    """By as many processes bit by bit; by others to what rounding does."""
    again, ddp, alone = (
        Path(shutil.copytree(killed, tmp_path / name)) for name in ("again", "ddp", "alone")
    )
    succeeded(launch(2, job(data, again, replace(MUON, strategy="fsdp")), job(data, ddp, MUON)))
    whole = sharded["muon"]
    assert rows(again) == rows(whole)
    from safetensors.torch import load_file

    files = [*again.glob("model/*.safetensors"), *again.glob("checkpoints/step-000030/*.safe*")]
    assert len(files) == 3
    for path in files:
        mine, theirs = load_file(path), load_file(whole / path.relative_to(again))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)

    train(data, tokenizer(), alone, MUON)
    four = go_on_from(20, whole, tmp_path / "four")
    succeeded(launch(4, job(data, four, replace(MUON, strategy="fsdp"))))
    assert len([*four.glob("checkpoints/step-000030/*.safetensors")]) == 4  # none of the two
    for out, strategy, began in ((ddp, "ddp", 11), (alone, "single", 11), (four, "fsdp", 21)):
        assert settings(out)["strategy"] == strategy
        first = next(r for r in rows(out) if r["step"] == began)["loss"]
        loss = next(r for r in rows(whole) if r["step"] == began)["loss"]
        assert first == pytest.approx(loss, rel=1e-6)
        agree(out, whole)


def test_torchrun_starts_again_after_a_kill(
    data: Path, sharded: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    asked = job(data, out, replace(MUON, strategy="fsdp"), kill=[0, 15])
    again = ("--standalone", "--max-restarts", "1")
    succeeded(launch(2, asked, options=again, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"))
    assert rows(out) == rows(sharded["muon"])
    said = json.loads((out / "rank-0.json").read_text())["said"]
    assert said[1] == f"resuming from step 10 of {out}"


def test_a_run_of_one_process_is_gone_on_with_by_shares(
    data: Path, one: Callable[[str], Path], tmp_path: Path
) -> None:
    out = go_on_from(20, one("muon"), tmp_path / "run")
    succeeded(launch(2, job(data, out, replace(MUON, strategy="fsdp"))))
    agree(out, one("muon"))


def test_a_share_that_is_missing_is_one_sentence(data: Path, killed: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(killed, tmp_path / "run"))
    last, *_ = sorted((out / "checkpoints/step-000010").glob("*.safetensors"), reverse=True)
    whole = last.read_bytes()
    last.unlink()
    with pytest.raises(InputError, match=r"cannot resume from .*one may be missing; train into"):
        train(data, tokenizer(), out, MUON)
    last.write_bytes(whole[:-1000])
    with pytest.raises(InputError, match=r"cannot resume from .*step-000010"):
        train(data, tokenizer(), out, MUON)


def test_a_full_disk_of_one_process_ends_all(
    data: Path, sharded: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing half-made stays, and the same command goes on."""
    out = tmp_path / "run"
    size = (sharded["muon"] / "checkpoints/step-000030").glob("shard-00002*")
    limit = [1, next(size).stat().st_size - 1]
    config = replace(MUON, strategy="fsdp")
    done = launch(2, job(data, out, config, limit=limit))
    told = set(re.findall(r"InputError: (.*)", done.stderr))
    assert done.returncode != 0 and len(told) == 1
    assert "process 1 cannot write its share of" in (line := told.pop()) and "step-000010" in line
    assert not [*out.glob("checkpoints/*")] and not [*out.rglob(".*.tmp")]
    succeeded(launch(2, job(data, out, config)))
    agree(out, sharded["muon"])


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"strategy": "fsdp"}, "this is one; launch them"), ({"strategy": "ddp"}, "this is one")],
)
def test_what_one_process_cannot_have(
    changes: dict[str, Any], word: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=word):
        train(data, tokenizer(), tmp_path / "run", replace(ADAMW, **changes))
    assert not (tmp_path / "run").exists()
