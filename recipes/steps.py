"""What every recipe of several commands shares: run each once, show it, remember its words."""

from __future__ import annotations

import shlex
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from jpeglm.files import atomic_write
from jpeglm.models.llama import flops_per_token, preset

ROOT = Path(__file__).resolve().parents[1]
JPEGLM = [sys.executable, "-m", "jpeglm"]
BATCH_TOKENS = 4096
"""`jpeglm train --batch-tokens` of runs that are compared by their FLOPs."""


def steps_for(
    flops: float,
    shards: Path,
    tokenizer: Path,
    size: str = "2m",
    model: dict[str, int] | None = None,
) -> int:
    """Steps of BATCH_TOKENS that a model of preset `size`, some of its keys replaced by `model`,
    trains for so many FLOPs."""
    from jpeglm.data.open import Dataset
    from jpeglm.tokenizer import Tokenizer

    loaded = Tokenizer.load(tokenizer)
    held_out = islice(Dataset(shards).streams("validation"), 500)
    lengths = [len(loaded.encode_stream(row.stream)) + 2 for row in held_out]
    length = round(sum(lengths) / len(lengths))
    config = preset(size, loaded.vocab_size, max_length=length, **(model or {}))
    return max(1, round(flops / (flops_per_token(config, length) * BATCH_TOKENS)))


class Steps:
    """Commands as a reader would type them, in `shown`; those that are done are not run again."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def do(self, result: Path, *words: Any) -> None:
        """Run a command whose end the file `result` proves; one that writes none gets a mark."""
        command = [str(word) for word in words]
        shown = shlex.join(command).replace(shlex.join(JPEGLM), "jpeglm")
        shown = shown.replace(f"{sys.executable} ", "python ").replace(f"{ROOT}/", "")
        if shown not in self.shown:
            self.shown.append(shown)
        if result.exists():
            print(f"done: {shown}", flush=True)
            return
        print(shown, flush=True)
        subprocess.run(command, check=True)
        if not result.exists():
            atomic_write(result, f"{shown}\n".encode())
