"""Training on a CPU: our loop and Hugging Face's Trainer on the same streams.

    python benchmarks/training.py [--preset 10m] [--steps 16]

Tokens/s that are learnt from, padding not counted, in the steps after the first six, which compile.
Both train the same Llama on the same token sequences, one a row, 4096 tokens a step; the peer's
rows are padded to the longest of the batch, as its collator does. `peak` is a large matrix product
in the same precision, as the tokens/s that it would be if training were nothing else (6 FLOPs a
weight and token, and attention). Muon's steps are measured by themselves beside torch's own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, rates, spread
from tokens import crops
from transformers import Trainer, TrainerCallback, TrainingArguments

from jpeglm.codecs import JpegCodec
from jpeglm.config import JpegConfig
from jpeglm.data.loader import TrainingLoader, load_tokens
from jpeglm.data.token_set import TokenSet
from jpeglm.models.llama import build, flops_per_token, preset
from jpeglm.tokenizer import Tokenizer
from jpeglm.training import TrainConfig
from jpeglm.training.lm import train
from jpeglm.training.optimizers import optimizers
from jpeglm.training.run import has_bfloat16

BATCH_TOKENS = 4096
SKIP = 6


def ours(
    data: Path, tokenizer: Path, out: Path, name: str, steps: int, compile: str
) -> list[float]:
    """Tokens/s of each step."""
    config = TrainConfig(
        preset=name, steps=steps, eval_images=0, batch_tokens=BATCH_TOKENS, compile=compile,
        log_every=1, save_every=10**9,
    )  # fmt: skip
    train(data, Tokenizer.load(tokenizer), out, config)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["tokens_per_second"] for row in rows if "tokens_per_second" in row][SKIP:]


class Clock(TrainerCallback):
    """Tokens/s of each step of a Trainer."""

    def __init__(self) -> None:
        self.batches: list[int] = []  # tokens of each; they are made before their step begins
        self.found: list[float] = []
        self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        tokens = self.batches[len(self.found)]
        self.found.append(tokens / (time.perf_counter() - self.began))


def theirs(tokens: TokenSet, shape: dict[str, Any], out: Path, steps: int) -> list[float]:
    """Tokens/s of each step of Hugging Face's Trainer."""
    clock = Clock()
    batch = max(1, round(BATCH_TOKENS / float(tokens.lengths.mean())))
    rows = [tokens.ids(row).astype(np.int64) for row in range(len(tokens))]

    def collate(parts: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        chosen = [rows[part["row"]] for part in parts]
        longest = max(map(len, chosen))
        ids = np.zeros((len(chosen), longest), np.int64)
        labels = np.full((len(chosen), longest), -100)
        for i, row in enumerate(chosen):
            ids[i, : len(row)] = labels[i, : len(row)] = row
        clock.batches.append(sum(map(len, chosen)))
        given = {"input_ids": ids, "labels": labels, "attention_mask": labels >= 0}
        return {name: torch.from_numpy(array.astype(np.int64)) for name, array in given.items()}

    settings = TrainingArguments(
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=batch, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
        bf16=has_bfloat16(torch.device("cpu")), use_cpu=True, learning_rate=1e-3,
    )  # fmt: skip
    data = [{"row": i} for i in range(len(rows))]
    Trainer(
        build(shape, 0), settings, data_collator=collate, train_dataset=data, callbacks=[clock]
    ).train()
    return clock.found[SKIP:]


def muon(shape: dict[str, Any], name: str) -> dict[str, dict[str, float]]:
    """Steps a second over the matrices of a model's layers."""
    model = build(shape, 0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    ours = optimizers(model, TrainConfig(preset=name, steps=1, optimizer="muon"))[-1]
    matrices = ours.param_groups[0]["params"]
    torchs = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw")
    return rates({"torch.optim.Muon": torchs.step, "jpeglm": ours.step}, 1, 3)


def peak(precision: torch.dtype) -> float:
    """FLOPs a second of a large matrix product."""
    a, b = torch.randn(2, 2048, 2048).to(precision)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="10m")
    parser.add_argument("--steps", type=int, default=16)
    arguments = parser.parse_args()
    codec = JpegCodec(JpegConfig(64, 64, restart_interval=1))
    with tempfile.TemporaryDirectory() as home:
        pictures = Path(home, "pictures")
        pictures.mkdir()
        for i, picture in enumerate(crops(400, 64, 64)):
            picture.save(pictures / f"{i}.png")
        streams = [codec.encode(picture) for picture in crops(400, 64, 64)]
        tokenizer = Tokenizer.train(streams, codec, vocab_size=1024)
        tokenizer.save(Path(home, "tokenizer"))
        tokens = load_tokens(pictures, tokenizer, "train")
        longest = -(-int(tokens.lengths.max()) // 64) * 64
        shape = preset(arguments.preset, tokenizer.vocab_size, longest)
        work = [pictures, Path(home, "tokenizer")]
        found = {
            "Hugging Face Trainer": theirs(tokens, shape, Path(home, "peer"), arguments.steps),
            "jpeglm": ours(*work, Path(home, "a"), arguments.preset, arguments.steps, "off"),
            "jpeglm, compiled": ours(
                *work, Path(home, "b"), arguments.preset, arguments.steps, "on"
            ),
        }
        loader = TrainingLoader(tokens, "pictures", BATCH_TOKENS, longest)
        sizes = [batch["labels"] for batch, _ in zip(loader, range(loader.steps_per_epoch))]
    rows = {name: spread(values) for name, values in found.items()}
    precision = torch.bfloat16 if has_bfloat16(torch.device("cpu")) else torch.float32
    each = flops_per_token(shape, round(float(tokens.lengths.mean())))
    rows[f"peak, {precision}".replace("torch.", "")] = spread([peak(precision) / each])
    padding = 1 - sum((one >= 0).sum() for one in sizes) / sum(one.size for one in sizes)
    tables = {
        f"{arguments.preset}, tokens/s": rows,
        f"{arguments.preset}, steps/s of Muon alone": muon(shape, arguments.preset),
        "padding of our batches, %": {"pictures": spread([100 * float(padding)])},
    }
    finish("training", "as titled", tables)


if __name__ == "__main__":
    main()
