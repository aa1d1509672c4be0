"""Pictures and clips from a checkpoint: `load` it, then `complete` one or `generate` new ones.

    import jpeglm
    model = jpeglm.load()
    pictures = model.complete(photo, keep=0.5, n=3).images

Sequences run in lockstep batches; a finished one leaves its batch. Prompts of one call are equal,
so they are prefilled once. The same seed gives the same picture, whatever n and batch.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.checkpoint import Checkpoint, checkpoint_folder, load_checkpoint
from jpeglm.config import MAX_SEED, InputError, check_seed, install, whole
from jpeglm.files import read_json
from jpeglm.generation.constraint import Ahead, Constraint, Prompt, make_prompt
from jpeglm.generation.engine import Engine
from jpeglm.generation.guidance import Guided
from jpeglm.generation.pictures import Drawn, Each, Pictures, Progress
from jpeglm.generation.sampling import Sampling, sample_step, scratch
from jpeglm.tokenizer import Tokenizer

PRECISION = {"cpu": "int8", "torch": "float32"}
"""Of each engine by default: int8 is twice to five times as fast on a CPU, and costs a twentieth of
a per cent of the bits (docs/benchmarks.md)."""
KEEP = {"picture": 0.5, "clip": 2 / 3}
"""Share of what a codec codes that `complete` keeps by default."""


def run(
    engine: Engine,
    constraint: Constraint,
    prompt: Prompt,
    n: int,
    sampling: Sampling,
    seed: int = 0,
    max_tokens: int | None = None,
    batch: int = 16,
    first_picture: int = 0,
    progress: Progress | None = None,
    finished: Callable[[int, np.ndarray, float], None] | None = None,
) -> tuple[list[np.ndarray], list[float]]:
    """(ids, bits) of n continuations of one prompt; `max_tokens` counts the prompt as well.

    finished: called with (number, ids, bits) as soon as a picture is.
    """
    budget = min(max_tokens or engine.max_length, engine.max_length)
    eos = constraint.tokenizer.eos
    if sampling.grammar:
        start, ahead = constraint.start(prompt, budget)
    else:
        # Nothing holds a free sampler to the prompt, so its last tokens are taken as they are.
        tail = constraint.tokenizer.encode_symbols(prompt.forced)
        prompt = Prompt(np.concatenate([prompt.ids, tail]).astype(np.int32), prompt.forced[:0])
        start, ahead = constraint.grammar.start(), Ahead(prompt.forced, 0, 0, 0)
        if len(prompt.ids) >= budget:
            raise InputError(
                f"the token budget is {budget}, but the prompt alone has {len(prompt.ids)} tokens"
            )
    draw = sampling.draw(seed)
    paper = scratch(constraint.tokenizer.vocab_size, constraint.vocabulary)
    known = len(ahead.forced) + (ahead.bits > 0)
    # An engine that follows the grammar itself takes over once nothing is forced any more.
    finish = getattr(engine, "finish", None) if sampling.grammar else None
    tables = constraint.automaton if finish else None
    all_ids: list[np.ndarray] = []
    all_bits: list[float] = []
    sampled = 0

    def tell(rows: np.ndarray) -> None:
        for row in rows.tolist():
            if finished:
                ids = np.array(drawn[row], np.int32)
                finished(first + row, ids, float(final[row] / np.log(2)))

    for first in range(0, n, batch):
        rows = min(batch, n - first)
        logits = engine.start([prompt.ids] * rows)
        states = np.repeat(start[None], rows, axis=0)
        pictures = np.arange(first_picture + first, first_picture + first + rows)
        forced_at = np.zeros(rows, np.int64)
        nats = np.zeros(rows)
        drawn: list[list[int]] = [[] for _ in range(rows)]
        final = np.zeros(rows)
        living = np.arange(rows)
        count = 0
        while len(living):
            left = budget - len(prompt.ids) - count
            if finish and tables and (forced_at >= known).all():
                rest, more = finish(logits, tables, states, left, draw, pictures, count)
                for row, tokens in zip(living, rest):
                    drawn[row] += tokens.tolist()
                final[living] = nats + more
                sampled += sum(map(len, rest))
                tell(living)
                break
            ids = np.zeros(len(living), np.int64)
            sample_step(
                constraint.spec, logits, states, forced_at, ahead, left, constraint.vocabulary,
                constraint.masks, draw, pictures, count, ids, nats, paper,
            )  # fmt: skip
            count += 1
            sampled += len(living)
            for row, token in zip(living, ids):
                drawn[row].append(int(token))
            on = ids != eos
            if len(prompt.ids) + count >= budget:
                on[:] = False
            if not on.all():
                final[living[~on]] = nats[~on]
                tell(living[~on])
                keep = np.flatnonzero(on)
                living, states, nats = living[keep], states[keep], nats[keep]
                pictures, forced_at, ids = pictures[keep], forced_at[keep], ids[keep]
                if len(living):
                    engine.keep(keep)
            if progress:
                progress(first + rows - len(living), n, sampled)
            if len(living):
                logits = engine.step(ids)
        if not np.isfinite(final).all():
            raise InputError(
                "the model's weights are finite, but what they compute is not; train it anew or "
                "use another checkpoint"
            )
        all_ids += [np.array(row, np.int32) for row in drawn]
        all_bits += (final / np.log(2)).tolist()
    return all_ids, all_bits


class Model:
    """A checkpoint with an engine, ready to draw."""

    def __init__(self, checkpoint: Checkpoint, engine: Engine) -> None:
        self.checkpoint = checkpoint
        self.tokenizer: Tokenizer = checkpoint.tokenizer
        self.codec = checkpoint.codec
        self.engine = engine
        self.constraint = Constraint(self.tokenizer)

    @property
    def classes(self) -> int:
        """Labels that `generate` and `complete` take; 0 for an unconditional checkpoint."""
        return self.tokenizer.n_classes

    def record(self) -> dict[str, Any]:
        """What names this model in results."""
        return {"tokenizer": self.tokenizer.fingerprint, "codec": self.codec.to_dict()}

    @cached_property
    def weights_mark(self) -> str:
        """16 hex digits of the weights file, by which drawn pictures are known again."""
        digest = hashlib.sha256()
        for file in self.checkpoint.weight_files:
            digest.update(np.memmap(file, np.uint8, "r").data)
        return digest.hexdigest()[:16]

    def warm_up(self) -> None:
        """Load or compile every kernel, so that no timed picture pays for it: a flat picture is
        given whole, which leaves a token or two to sample."""
        stream = self.codec.encode(self.codec.blank())
        prefix = self.tokenizer.alphabet.prefix(stream, self.codec.units)
        prompt = make_prompt(self.tokenizer, prefix, self.tokenizer.bos)
        run(self.engine, self.constraint, prompt, 1, self.sampling())

    def sampling(self, **changes: Any) -> Sampling:
        """The checkpoint's sampling defaults with changes; None means unchanged."""
        known = ("temperature", "top_k", "top_p")
        values = {k: v for k, v in self.checkpoint.generation.items() if k in known}
        values |= {k: v for k, v in changes.items() if v is not None}
        return Sampling(**values)

    def _first(self, label: int | str | None) -> int:
        return self.tokenizer.bos if label is None else self.tokenizer.class_token(label)

    def _draw(
        self,
        prompt: Prompt,
        n: int,
        sampling: Sampling,
        seed: int,
        max_tokens: int | None,
        batch: int,
        progress: Progress | None,
        each: Each | None,
        pictures: Pictures,
    ) -> Pictures:
        """Fill `pictures`, whose original and prompt are known."""
        n, batch, seed = whole("n", n, 1), whole("batch", batch, 1), check_seed(seed)
        if max_tokens is not None:
            max_tokens = whole("max_tokens", max_tokens, 1)
        engine = self.engine
        if sampling.guidance != 1:
            if prompt.ids[0] <= self.tokenizer.eos:
                raise InputError(
                    "guidance needs a class: give --label to a checkpoint with classes"
                )
            engine = Guided(engine, sampling.guidance, self.tokenizer.bos)
        pictures.settings |= {**sampling.to_dict(), "seed": seed, "n": n, "max_tokens": max_tokens}
        head = self.tokenizer.decode(prompt.ids)
        made: dict[int, tuple[bytes, Any]] = {}
        aside = 0.0  # spent on more than drawing

        def finished(number: int, ids: np.ndarray, bits: float) -> None:
            nonlocal aside
            begun = time.perf_counter()
            symbols = np.concatenate([head, self.tokenizer.decode(ids)])
            stream = self.tokenizer.alphabet.join(symbols)
            made[number] = stream, self.codec.show(stream)
            if each:
                each(pictures, Drawn(number, made[number][1], stream, len(ids), bits))
            aside += time.perf_counter() - begun

        start = time.perf_counter()
        pictures.ids, pictures.bits = run(
            engine,
            self.constraint,
            prompt,
            n,
            sampling,
            seed,
            max_tokens,
            batch,
            progress=progress,
            finished=finished,
        )
        pictures.seconds = time.perf_counter() - start - aside
        pictures.prompt_tokens = len(prompt.ids)
        pictures.streams = [made[number][0] for number in range(n)]
        pictures.images = [made[number][1] for number in range(n)]
        return pictures

    def generate(
        self,
        n: int = 1,
        *,
        seed: int = 0,
        label: int | str | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        grammar: bool = True,
        max_tokens: int | None = None,
        batch: int = 16,
        progress: Progress | None = None,
        each: Each | None = None,
    ) -> Pictures:
        """Draw n new pictures; `each` gets every one as soon as it is drawn."""
        sampling = self.sampling(
            guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p, grammar=grammar
        )
        ids = np.array([self._first(label)], np.int32)
        prompt = Prompt(ids, np.zeros(0, np.int32))
        pictures = Pictures(settings={"label": label})
        return self._draw(prompt, n, sampling, seed, max_tokens, batch, progress, each, pictures)

    def complete(
        self,
        media: Any,
        keep: float | None = None,
        n: int = 1,
        *,
        units: int | None = None,
        seed: int = 0,
        label: int | str | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        grammar: bool = True,
        max_tokens: int | None = None,
        batch: int = 16,
        progress: Progress | None = None,
        each: Each | None = None,
    ) -> Pictures:
        """Keep the first floor(keep · MCUs) MCUs of a picture and draw the rest n times.

        media is what `Codec.encode` takes: a path, a file's bytes, an array or a PIL picture, of
        any size and mode; it is fitted to the codec's size first. Of a clip frames are kept. keep:
        default a half of a picture, two thirds of a clip; `units` gives MCUs or frames instead.
        """
        if keep is None:
            keep = KEEP[self.codec.media]
        if not 0 <= keep <= 1:
            raise InputError(f"keep is {keep}; it is a share of the picture, from 0 to 1")
        stream = self.codec.encode(media)
        kept = int(keep * self.codec.units + 1e-9) if units is None else units
        pictures = self.continue_stream(
            stream, kept, n, seed=seed, label=label, guidance=guidance, temperature=temperature,
            top_k=top_k, top_p=top_p, grammar=grammar, max_tokens=max_tokens, batch=batch,
            progress=progress, each=each,
        )  # fmt: skip
        pictures.settings["keep"] = keep if units is None else units / self.codec.units
        return pictures

    def continue_stream(
        self,
        stream: bytes,
        units: int,
        n: int = 1,
        *,
        seed: int = 0,
        label: int | str | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        grammar: bool = True,
        max_tokens: int | None = None,
        batch: int = 16,
        progress: Progress | None = None,
        each: Each | None = None,
    ) -> Pictures:
        """Keep the first `units` units of a canonical stream and draw the rest n times."""
        if not 0 <= whole("units", units, -MAX_SEED) <= self.codec.units:
            what = "frames" if self.codec.media == "clip" else "units"
            raise InputError(f"{units} {what} are to be kept; there are {self.codec.units}")
        sampling = self.sampling(
            guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p, grammar=grammar
        )
        prefix = self.tokenizer.alphabet.prefix(stream, units)
        prompt = make_prompt(self.tokenizer, prefix, self._first(label))
        pictures = Pictures(
            original=stream,
            prompt=self.codec.cut(stream, units),
            units_kept=units,
            settings={"label": label, "keep": units / self.codec.units},
        )
        return self._draw(prompt, n, sampling, seed, max_tokens, batch, progress, each, pictures)


def load(
    checkpoint: Path | str | None = None,
    *,
    engine: str = "cpu",
    precision: str | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> Any:
    """Open a checkpoint with an engine: a `Model`. It is a folder, or one that ships with the
    package by its name: `photos` (the default), `cifar10`, `clips`.

    engine: `cpu` (numba, no torch; precision int8, the default, bfloat16 or float32) or `torch`
    (device as torch names it, precision float32, the default, or bfloat16). A folder of `train-vae`
    gives a `Prior`, which has `generate` alone.
    """
    folder = checkpoint_folder(checkpoint)
    if _is_vae(folder):
        from jpeglm.generation.prior import Prior

        return Prior(folder)
    opened = load_checkpoint(folder)
    model = Model(opened, make_engine(opened, engine, precision, device, threads))
    if engine == "cpu":
        model.warm_up()
    return model


def open_coder(folder: Path) -> Any:
    """The tokenizer of a checkpoint or tokenizer folder, or the `Prior` of a VAE's: no model."""
    folder = checkpoint_folder(folder)
    if _is_vae(folder):
        from jpeglm.generation.prior import Prior

        return Prior(folder)
    return Tokenizer.load(folder)


def _is_vae(folder: Path) -> bool:
    record = folder / "codec.json"
    codec = read_json(record).get("codec") if record.exists() else None
    return isinstance(codec, dict) and codec.get("codec") == "vae"


def make_engine(
    checkpoint: Checkpoint,
    engine: str = "cpu",
    precision: str | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> Engine:
    """The engine `cpu` or `torch` over a checkpoint's weights."""
    precision = precision or PRECISION.get(engine, "")
    if engine == "cpu":
        if device not in (None, "cpu"):
            raise InputError(
                f"device is {device!r}, but the cpu engine runs on the processor alone; choose the "
                "engine torch for it"
            )
        from jpeglm.generation.engine_cpu import CpuEngine

        return CpuEngine(checkpoint.config, checkpoint.weights, precision, threads=threads)
    if engine == "torch":
        try:
            import torch

            from jpeglm.generation.engine_graph import GraphEngine
            from jpeglm.generation.engine_torch import TorchEngine
        except ImportError as error:
            raise InputError(
                f"the torch engine needs torch and transformers; {install('train')}"
            ) from error
        device = device or "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"the device {device!r} cannot be used: {reason}") from error
        # Following the grammar in tables costs a processor more than it saves.
        kind = GraphEngine if device.startswith("cuda") else TorchEngine
        return kind.from_checkpoint(checkpoint.folder, device, precision)
    raise InputError(f"there is no engine {engine!r}; choose cpu or torch")
