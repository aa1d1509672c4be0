"""Sampling speed of our engine and of others on the same weights.

    python benchmarks/generation.py [--models shipped 10m 85m] [--batches 1 16] [--tokens 200]

Tokens/s of all sequences of a batch in their first 200 tokens, prefill of one BOS included. Models
are the shipped one or a preset with random weights; every row samples with top-k 40 and top-p 0.9,
ours also with its grammar, under which a picture may end before. Peers lie in benchmarks/peers, one
file each; pip install -r benchmarks/requirements.txt.

The row `floor` is no engine: what one core would reach if it did nothing but read the weights once
a token, measured in the same run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import finish, memory, rates, read_all
from peers import peers

from jpeglm.checkpoint import Checkpoint, load_checkpoint, write_checkpoint
from jpeglm.config import Sampling
from jpeglm.generation.export import export
from jpeglm.generation.loading import make_engine
from jpeglm.generation.matcher import Constraint, bare_prompt
from jpeglm.generation.requests import Request
from jpeglm.generation.session import Session
from jpeglm.models.llama import build, parameters, preset
from jpeglm.places import shipped_checkpoint

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


def random_checkpoint(name: str, folder: Path) -> Checkpoint:
    """A preset with random weights and the shipped model's tokenizer."""
    tokenizer = load_checkpoint(shipped_checkpoint()).tokenizer
    shape = preset(name, tokenizer.vocab_size, 1024)
    model = build(shape, 0)
    weights = {key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}
    write_checkpoint(folder, weights, shape, tokenizer, "", {}, "float32")
    return load_checkpoint(folder)


def ours(
    checkpoint: Checkpoint, precision: str, grammar: bool, batch: int, tokens: int
) -> Callable[[], int]:
    """A call that draws `tokens` tokens of `batch` streams and gives how many there were."""
    engine = make_engine(checkpoint, precision=precision)
    constraint = Constraint(checkpoint.tokenizer)
    prompt = bare_prompt(checkpoint.tokenizer.bos)
    sampling = Sampling(1.0, 40, 0.9, grammar=grammar)

    def call() -> int:
        session = Session(engine, constraint)
        for number in range(batch):
            session.add(Request(prompt, sampling, picture=number))
        for _ in range(tokens):
            session.step()
        return session.tokens

    return call


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["shipped"], help="shipped, or presets")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    others, unavailable = peers()
    tables: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        for name in arguments.models:
            folder = Path(home, name)
            if name == "shipped":
                export(load_checkpoint(shipped_checkpoint()), folder, dtype="float32")
                checkpoint = load_checkpoint(folder)
            else:
                checkpoint = random_checkpoint(name, folder)
            opened = {}
            for peer in others:
                for precision in peer.PRECISIONS:
                    work = Path(home, f"{name}-{peer.__name__}-{precision}")
                    work.mkdir()
                    call = peer.open(checkpoint.folder, work, precision)
                    opened[f"{peer.NAME}, {precision}"] = call
            size = parameters(checkpoint.config)
            for batch in arguments.batches:
                title = f"{name} ({size / 1e6:.1f} M), batch {batch}, {arguments.tokens} tokens"
                tables[title] = table(
                    checkpoint, opened, batch, arguments.tokens, arguments.repeats, size
                )
    finish("generation", "tokens/s", tables, unavailable)


def table(
    checkpoint: Checkpoint,
    opened: dict[str, Callable[[int, int], None]],
    batch: int,
    tokens: int,
    repeats: int,
    size: int,
) -> dict[str, dict[str, float]]:
    """Rates of everybody at one batch size."""
    counts: dict[str, int] = {}
    rows: dict[str, Callable[[], Any]] = {}
    for name, call in opened.items():
        rows[name] = lambda call=call: call(batch, tokens)
        counts[name] = batch * tokens
    for precision in BYTES:
        for grammar in (True, False):
            if grammar or precision == "float32":
                call = ours(checkpoint, precision, grammar, batch, tokens)
                name = f"jpeglm, {precision}{'' if grammar else ', no grammar'}"
                rows[name], counts[name] = call, call()
    for precision, width in BYTES.items():
        data = memory(size * width)
        name = f"floor, {precision}"
        rows[name] = lambda data=data: [read_all(data) for _ in range(20)]
        counts[name] = 20 * batch
    found = rates(rows, 1.0, repeats)
    return {
        name: {key: value * counts[name] for key, value in figures.items()}
        for name, figures in found.items()
    }


if __name__ == "__main__":
    main()
