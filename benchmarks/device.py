"""Sampling and training on a GPU, with the share of the hardware that is used.

    python benchmarks/device.py [--device cuda] [--models 85m 1b] [--batches 1 16 128] [--minutes 5]

Sampling: tokens/s of all sequences, by our engine on the device (`engine_graph`) with the grammar
and without, and by `transformers.generate` with a static cache, compiled, which knows no grammar.
`floor` is what the device's memory allows if a step reads the weights and nothing else; the
bandwidth is measured by copying. Training: tokens/s of whole steps (Muon, bfloat16, compiled), and
the share of the FLOPs of a product of large matrices that they come to (MFU); 1b checkpoints its
activations; `FSDP2` shards the same step over one device.

Every figure is written as soon as it is there; run again, with more time, the others follow.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, machine, show, spread, write
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from jpeglm.checkpoint import load_checkpoint
from jpeglm.files import read_json
from jpeglm.kernels import COMPILED
from jpeglm.models.llama import flops_per_token, parameters, preset
from jpeglm.places import shipped_checkpoint
from jpeglm.training import TrainConfig
from jpeglm.training.optimizers import optimizers

Figures = dict[str, float]
CHECKPOINTED = ("1b", "7b")
"""Presets whose activations are computed twice."""


def seconds(call: Callable[[], Any], device: str, repeats: int) -> list[float]:
    """Times of a call whose work the device may still be doing when it returns; one before them
    does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times[1:]


@cache
def bandwidth(device: str) -> Figures:
    """Bytes a second that the device's memory gives, reading and writing."""
    data = torch.zeros(1 << (28 if device != "cpu" else 22), device=device)
    other = torch.empty_like(data)
    return spread([2 * data.nbytes / one for one in seconds(lambda: other.copy_(data), device, 5)])


@cache
def product(device: str, kind: torch.dtype) -> Figures:
    """FLOPs a second of a product of large matrices of random numbers."""
    size = 8192 if device != "cpu" else 512
    a = torch.randn(size, size, device=device, dtype=kind)
    return spread([2 * size**3 / one for one in seconds(lambda: a @ a, device, 5)])


def scaled(figures: Figures, by: float) -> Figures:
    return {name: value * by for name, value in figures.items()}


class Sampler:
    """A preset with random weights on the device, drawing with the shipped model's tokenizer."""

    def __init__(self, name: str, tokens: int, device: str, kind: torch.dtype, repeats: int):
        tokenizer = load_checkpoint(shipped_checkpoint()).tokenizer
        self.tokenizer, self.tokens, self.device, self.repeats = tokenizer, tokens, device, repeats
        self.shape = preset(name, tokenizer.vocab_size, 1024)
        self.model: Any = fresh(self.shape, device).to(kind).eval()
        self.width = torch.finfo(kind).bits // 8

    def theirs(self, batch: int) -> Figures:
        """`transformers.generate`; its static cache is compiled where there are graphs."""
        ids = torch.full((batch, 1), self.tokenizer.bos, device=self.device)
        static = {"cache_implementation": "static"} if self.device != "cpu" else {}

        def call() -> None:
            self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=40, top_p=0.9,
                max_new_tokens=self.tokens, min_new_tokens=self.tokens,
                pad_token_id=self.tokenizer.bos, **static,
            )  # fmt: skip

        work = batch * self.tokens
        return spread([work / one for one in seconds(call, self.device, self.repeats)])

    def ours(self, batch: int, grammar: bool) -> Figures:
        """Our engine; without grammar it follows tables in which every token is legal."""
        from jpeglm.config import Sampling
        from jpeglm.generation.engine import DeviceTables
        from jpeglm.generation.engine_cuda import GraphEngine
        from jpeglm.generation.matcher import ENDLESS, Constraint, bare_prompt
        from jpeglm.generation.requests import Request
        from jpeglm.generation.sampling import ROW, make_draw
        from jpeglm.generation.session import Session

        if not COMPILED:
            raise RuntimeError("the grammar's tables need numba")
        engine, constraint = GraphEngine(self.model), Constraint(self.tokenizer)
        sampling, size = Sampling(1.0, 40, 0.9), self.tokenizer.vocab_size
        nothing = np.zeros((1, size), np.int16)
        free = DeviceTables(
            nothing.astype(np.int32), nothing, nothing, np.zeros(1, np.int64), self.tokenizer.eos
        )
        rows = np.zeros(batch, ROW)
        rows["walk"]["left"] = ENDLESS
        for number in range(batch):
            rows["draw"][number] = make_draw(sampling, 0, number)
        drawn: list[int] = []

        # One for all calls, as a model has it: it builds the tables, and graphs are theirs.
        session = Session(engine, constraint) if grammar else None

        def with_grammar() -> None:
            assert session
            begun, prompt = session.tokens, bare_prompt(self.tokenizer.bos)
            asked = [
                session.add(Request(prompt, sampling, picture=number)) for number in range(batch)
            ]
            while session.busy and session.tokens - begun < batch * self.tokens:
                session.step()
            drawn.append(session.tokens - begun)
            for number in asked:
                session.remove(number)

        def without() -> None:
            engine.remove(np.arange(engine.sequences))
            logits = engine.add([np.array([self.tokenizer.bos])] * batch)
            everywhere, endless = np.zeros(batch, np.int64), np.full(batch, 10**9)
            engine.decode_on_device(
                free, logits, everywhere, endless, rows, np.arange(batch),
                np.ones(batch, np.float32), self.tokens,
            )  # fmt: skip
            drawn.append(batch * self.tokens)

        call = with_grammar if grammar else without
        times = seconds(call, self.device, self.repeats)
        return spread([count / one for count, one in zip(drawn[1:], times)])

    def floor(self, batch: int) -> Figures:
        return scaled(bandwidth(self.device), batch / (self.width * parameters(self.shape)))


def fresh(shape: dict[str, Any], device: str) -> Any:
    """A model with random weights, made where it is used."""
    settings = LlamaConfig(**{k: v for k, v in shape.items() if k != "architectures"})
    with torch.device(device):
        return LlamaForCausalLM(settings)


def training(
    name: str, context: int, tokens: int, device: str, repeats: int, fsdp: bool = False
) -> Figures:
    """Tokens/s of whole steps on random ids."""
    shape = preset(name, 1024, context)
    model = fresh(shape, device)
    if name in CHECKPOINTED:
        old = model.gradient_checkpointing_enable
        getattr(model, "activation_checkpointing_enable", old)({"use_reentrant": False})
    cuda = device != "cpu"
    with process_group(device) if fsdp else nullcontext():
        if fsdp:
            shard(model, torch.bfloat16 if cuda else torch.float32)
        chosen = TrainConfig(preset=name, steps=1, optimizer="adamw" if fsdp else "muon")
        movers = optimizers(model, chosen)
        rows = max(1, tokens // context)
        ids = torch.randint(0, 1000, (rows, context + 1), device=device)

        def loss() -> torch.Tensor:
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
            return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

        compiled = torch.compile(loss) if cuda else loss

        def step() -> None:
            with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=cuda):
                value = compiled()
            value.backward()
            for mover in movers:
                mover.step()
                mover.zero_grad(set_to_none=True)

        return spread([rows * context / one for one in seconds(step, device, repeats)])


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """A group of this one process."""
    import torch.distributed as dist

    backend = "nccl" if device != "cpu" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard(model: Any, kind: torch.dtype) -> None:
    """FSDP2: each layer's weights are a group of their own, gathered when it is their turn."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=kind, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)


Cell = tuple[str, str, Callable[[], Figures]]
"""(table, row, what measures it)."""


def sampling_cells(arguments: argparse.Namespace, kind: torch.dtype) -> Iterator[Cell]:
    """Model by model, so that only one lies on the device."""
    for name in arguments.models:
        made = cache(
            partial(Sampler, name, arguments.tokens, arguments.device, kind, arguments.repeats)
        )
        for batch in arguments.batches:
            title = f"sampling, {name}, batch {batch}"
            yield title, "transformers.generate, static cache", partial(_of, made, "theirs", batch)
            yield title, "jpeglm", partial(_of, made, "ours", batch, True)
            yield title, "jpeglm, no grammar", partial(_of, made, "ours", batch, False)
            yield title, "floor", partial(_of, made, "floor", batch)


def _of(made: Callable[[], Sampler], what: str, *words: Any) -> Figures:
    return getattr(made(), what)(*words)


def training_cells(arguments: argparse.Namespace, kind: torch.dtype) -> Iterator[Cell]:
    device = arguments.device
    for word in arguments.train:
        name, _, context = word.partition(":")
        tokens = max(arguments.batch_tokens, int(context))
        for row, fsdp in (("tokens/s", False), ("tokens/s, FSDP2 on one device", True)):
            measure = partial(training, name, int(context), tokens, device, arguments.repeats, fsdp)
            yield f"training, {name}, context {context}", row, measure


def share(title: str, figures: Figures, device: str, kind: torch.dtype) -> Figures:
    """What a table of training's tokens/s are of the device's FLOPs."""
    _, name, words = title.split(", ")
    context = int(words.split()[1])
    each = flops_per_token(preset(name, 1024, context), context)
    return scaled(figures, each / product(device, kind)["median"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="*", default=["85m", "1b"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 128])
    parser.add_argument("--tokens", type=int, default=400, help="of each sequence")
    parser.add_argument(
        "--train", nargs="*", metavar="PRESET:CONTEXT",
        default=["10m:1024", "5m:1024", "85m:4096", "85m:12288", "1b:4096", "1b:12288"],
    )  # fmt: skip
    parser.add_argument("--batch-tokens", type=int, default=49152, help="of a training step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60, help="begin nothing after them")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    device, end = arguments.device, time.monotonic() + 60 * arguments.minutes
    kind = torch.float32 if device == "cpu" else torch.bfloat16
    what = torch.cuda.get_device_name(device) if device != "cpu" else "CPU"
    out = arguments.folder / f"bench-device-{short_name(what)}.json"
    unit, where = f"on {what}", machine() | {"device": what}
    tables: dict[str, Any] = read_json(out)["tables"] if out.exists() else {}
    missing: dict[str, str] = {}
    # The smaller model first in both kinds: what fits into the time says something of each.
    cells = [*sampling_cells(arguments, kind), *training_cells(arguments, kind)]
    for title, row, measure in sorted(cells, key=lambda cell: "1b" in cell[0]):
        if row in tables.get(title, {}):
            continue
        if time.monotonic() > end:
            missing[f"{title}: {row}"] = "no time was left"
            continue
        try:
            figures = measure()
        except (RuntimeError, ImportError) as error:  # torch's lack of memory is the former
            missing[f"{title}: {row}"] = " ".join(str(error).split())[:200]
            continue
        finally:
            torch.compiler.reset()
            if device != "cpu":
                torch.cuda.empty_cache()
        tables.setdefault(title, {})[row] = figures
        if title.startswith("training"):
            named = row.replace("tokens/s", "share of a product's FLOPs")
            tables[title][named] = share(title, figures, device, kind)
        tables["the device"] = {
            "copying memory, bytes/s": bandwidth(device),
            "product of matrices, FLOPs/s": product(device, kind),
        }
        write(out, unit, tables, missing, True, where)
        print(f"{title}: {row}: {figures['median']:,.0f}", flush=True)
    write(out, unit, tables, missing, True, where)
    show("device", unit, tables, missing)


def short_name(device: str) -> str:
    """`h100` for NVIDIA H100 80GB HBM3."""
    found = [word for word in device.lower().split() if word[0].isalpha() and word[-1].isdigit()]
    return found[0] if found else device.lower().replace(" ", "-")


if __name__ == "__main__":
    main()
