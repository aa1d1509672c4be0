"""Run folders that somebody or something has been at: one sentence, or gone on with; nothing that
is left is thrown away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from jpeglm.config import InputError  # noqa: E402
from jpeglm.places import checkpoint_folder  # noqa: E402
from jpeglm.training import lm  # noqa: E402
from jpeglm.training.run import Checkpoints  # noqa: E402
from tests.integration.launched import SHAPE, rows, tokenizer  # noqa: E402
from tests.unit.conftest import until  # noqa: E402

CONFIG = lm.TrainConfig(
    steps=12,
    model=SHAPE,
    batch_tokens=512,
    precision="float32",
    log_every=1,
    eval_images=0,
    save_every=4,
    keep=2,
    threads=1,
)
LAST, BEFORE = "step-000012", "step-000008"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def checkpoints(out: Path) -> list[str]:
    return sorted(os.listdir(out / "checkpoints"))


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def unpickled(path: Path) -> None:
    """A byte of the pickle inside is another; the zip is whole."""
    data = bytearray(path.read_bytes())
    data[data.index(b"windows") - 6] ^= 0x40
    path.write_bytes(data)


def other(path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    "name, damage, why",
    [
        ("training_state.pt", halved, "is damaged, torch cannot read it"),
        ("training_state.pt", lambda path: os.truncate(path, 0), "is damaged, torch cannot read"),
        ("training_state.pt", unpickled, "is damaged, torch cannot read it"),
        ("training_state.pt", other, "is no training state"),
        ("training_state.pt", os.unlink, "there is no file"),
        ("model.safetensors", halved, "is not a complete safetensors file"),
        ("model.safetensors", os.unlink, "there is no file"),
        (".", shutil.rmtree, "there is no file"),
    ],
)
def test_a_damaged_checkpoint_is_told_with_the_one_before(
    data: Path, run: Path, name: str, damage: Callable[[Path], None], why: str
) -> None:
    """Which is gone on from once it is pointed to."""
    damage(run / "checkpoints" / LAST / name)
    with pytest.raises(InputError) as met:
        lm.train(data, tokenizer(), run, replace(CONFIG, keep=1))
    said, pointer = str(met.value), run / "checkpoints/last.json"
    assert said.startswith(f"cannot resume from {run}/checkpoints/{LAST}: ")
    assert why in said and "\n" not in said and len(said.replace(str(run), "")) < 250
    assert said.endswith(f"; point {pointer} to {BEFORE} or train into a new folder")
    pointer.write_text(pointer.read_text().replace(LAST, BEFORE))
    shutil.rmtree(run / "checkpoints" / LAST, ignore_errors=True)
    lines: list[str] = []
    lm.train(data, tokenizer(), run, CONFIG, say=lines.append)
    assert f"resuming from step 8 of {run}" in lines
    assert [row["step"] for row in rows(run)] == list(range(1, 13))


def test_a_pointer_to_nothing_costs_no_checkpoint(data: Path, run: Path) -> None:
    """Not even where a run keeps one alone."""
    pointer, before = run / "checkpoints/last.json", checkpoints(run)
    for text in (b"", b"{}", b'{"folder": 3}', b'{"folder": ""}', b'{"folder": "."}',
                 b'{"folder": "a\\u0000"}'):  # fmt: skip
        pointer.write_bytes(text)
        with pytest.raises(InputError, match=r"last\.json .*; delete it, and the latest"):
            lm.train(data, tokenizer(), run, replace(CONFIG, keep=1))
        assert checkpoints(run) == before
    pointer.write_text('{"folder": "step-000099"}')
    with pytest.raises(InputError, match=rf"cannot resume .*99: .*last\.json to {LAST} or train"):
        lm.train(data, tokenizer(), run, replace(CONFIG, keep=1))
    assert checkpoints(run) == before


def test_without_a_pointer_the_latest_is_gone_on_from(data: Path, run: Path, whole: Path) -> None:
    (run / "checkpoints/last.json").unlink()
    lines: list[str] = []
    lm.train(data, tokenizer(), run, replace(CONFIG, steps=14), say=lines.append)
    assert f"resuming from step 12 of {run}" in lines
    assert rows(run)[:12] == rows(whole)


def test_names_of_the_users_beside_checkpoints_stay(data: Path, run: Path) -> None:
    """A copy that was put aside, a file, a folder that lies on another disk."""
    folder = run / "checkpoints"
    shutil.copytree(folder / LAST, folder / f"{LAST} (good)")
    (folder / "step-old").mkdir()
    (folder / "step-000002").write_text("a note")
    os.rename(folder / BEFORE, run.parent / "moved")
    (folder / BEFORE).symlink_to(run.parent / "moved")
    assert Checkpoints(folder, 1).last() == folder / LAST
    lm.train(data, tokenizer(), run, replace(CONFIG, steps=16, keep=1))
    kept = {f"{LAST} (good)", "step-old", "step-000002", BEFORE}
    assert {*checkpoints(run)} == kept | {"step-000016", "last.json"}
    shutil.rmtree(run / "model")
    assert checkpoint_folder(run) == folder / "step-000016"


def test_a_record_of_something_else_is_refused(data: Path, run: Path) -> None:
    (run / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json was not written by jpeglm"):
        lm.train(data, tokenizer(), run, CONFIG)


def test_a_checkpoint_of_another_run_is_not_taken(data: Path, run: Path, tmp_path: Path) -> None:
    """Though it has the same shape. One of an older version does not say whose it is."""
    other, into = tmp_path / "other/checkpoints", run / "checkpoints"
    lm.train(data, tokenizer(), other.parent, replace(CONFIG, seed=1, steps=4))
    shutil.rmtree(into)
    shutil.copytree(other, into)
    match = r"cannot resume from .*step-000004: it is another run's: seed is 1, not 0; train into"
    with pytest.raises(InputError, match=match):
        lm.train(data, tokenizer(), run, CONFIG)
    assert checkpoints(run) == ["last.json", "step-000004"] and len(rows(run)) == 12
    file = into / "step-000004/training_state.pt"
    saved = torch.load(file, weights_only=True)
    del saved["run"]
    torch.save(saved, file)
    lines: list[str] = []
    lm.train(data, tokenizer(), run, CONFIG, say=lines.append)
    assert f"resuming from step 4 of {run}" in lines


def test_a_folder_that_vanishes_ends_the_run_in_a_sentence(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def progress(done: int, total: int | None, note: str) -> None:
        if out.exists() and done == 5:
            until(lambda: (out / "checkpoints/last.json").exists())
            os.rename(out, tmp_path / "moved")

    with pytest.raises(InputError, match=r"run/.*No such file or directory"):
        lm.train(data, tokenizer(), out, replace(CONFIG, steps=100_000), progress=progress)
    assert checkpoints(tmp_path / "moved") == ["last.json", "step-000004"]
