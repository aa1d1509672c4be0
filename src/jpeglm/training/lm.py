"""THE training loop: token sequences to a Llama checkpoint, on one process or many.

    OUT/config.json              settings and what they were resolved to, data, versions
    OUT/metrics.jsonl            a row each log_every steps, a row each evaluation
    OUT/checkpoints/step-000500  float32 weights in Hugging Face form, and training_state.pt
    OUT/checkpoints/last.json    which of them to go on from
    OUT/model                    the best evaluated weights in bfloat16, for everything else
    OUT/samples, OUT/tensorboard

Killed at any moment, the same command goes on from the last checkpoint; metrics.jsonl is cut back
to it, so that a budget in steps ends with the same losses as if never stopped. Trade-off: losses
are summed over tokens and divided by the count over all processes, one small exchange a step, so
that the gradient does not depend on how rows fall to processes.

    jpeglm train data/photos-64 --out runs/photos --minutes 30
    torchrun --nproc-per-node 8 -m jpeglm train …     (or accelerate launch: DDP, FSDP)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.distributed.checkpoint.state_dict as dcp
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from PIL import Image
from torch.nn import functional as F

from jpeglm import __version__
from jpeglm.checkpoint import (
    Checkpoint,
    checkpoint_folder,
    from_bfloat16,
    load_checkpoint,
    read_weights,
    write_checkpoint,
)
from jpeglm.config import InputError, differences
from jpeglm.data.loader import TokenSet, TrainingLoader, ahead, load_tokens, validation_batches
from jpeglm.environment import commit, processor, versions
from jpeglm.files import atomic_folder, atomic_write, read_json, remove_halves, write_json
from jpeglm.folders import CHECKPOINT, RUN, claim, quoted
from jpeglm.models.llama import SHORT, build, flops_per_token, like, parameters, preset
from jpeglm.training import TrainConfig
from jpeglm.training.optimizers import optimizers
from jpeglm.training.run import (
    PACKAGES,
    Checkpoints,
    Stop,
    has_bfloat16,
    open_metrics,
    refuse_other_run,
    save_state,
    stop_on_signals,
)

if TYPE_CHECKING:
    from jpeglm.tokenizer import Tokenizer

__all__ = ["TrainConfig", "train"]

Progress = Callable[[int, int | None, str], None]
"""Called with (steps done, steps in all as far as known, a note)."""
Sampler = Callable[[Any, "Tokenizer", int, int], Image.Image | None]
"""(LlamaForCausalLM in eval mode, tokenizer, n, seed) -> a sheet; called on the first process."""

FREE = (
    "steps", "epochs", "minutes", "log_every", "eval_every", "save_every", "samples", "keep",
    "threads", "compile", "activation_checkpointing",
)  # fmt: skip
"""Settings that a resumed run may change: the budget, which sets the learning rate from then on,
and what no loss depends on but by rounding."""
PAPER_SAMPLING = {"temperature": 1.0, "top_p": 0.9, "top_k": 40}
"""Stored as the checkpoint's sampling defaults (arXiv 2408.08459, section 4)."""


@dataclass
class State:
    """Where a run stands; with weights, optimizer and data position all that resuming needs."""

    step: int = 0
    tokens: int = 0
    images: int = 0
    seconds: float = 0.0
    window_nats: float = 0.0
    window_tokens: int = 0
    window_seconds: float = 0.0
    evaluated: int = -1
    """Step of the last evaluation."""
    best: float = math.inf
    """Lowest bits an image; its weights are in OUT/model."""
    best_step: int = -1


class Objective(torch.nn.Module):
    """Llama with its loss: summed -ln p of each row's ids after the first, padding left out."""

    def __init__(self, model: transformers.LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model
        self._no_split_modules = model._no_split_modules  # what FSDP shards by

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """ids, targets: int64 [B, T], targets[b, t] follows ids[b, t], -100 is left out."""
        logits = self.model(input_ids=ids, use_cache=False).logits.float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def train(
    data: Path,
    tokenizer: Tokenizer,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = True,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    """Train from scratch or from `config.init`, or go on with the run in `out`; returns what the
    run came to.

    resume False refuses a folder that holds a run. SIGINT and SIGTERM finish the step, save and
    return with `stopped` true; a second one ends the process at once. Raises InputError where data,
    settings and the run in `out` do not fit together.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    # Without cpu=True accelerate ignores torchrun's environment on a machine that has no device:
    # every process would train the whole run alone, into the same folder.
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=_precision(config),
        step_scheduler_with_optimizer=False,
    )
    try:
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched != accelerator.num_processes:
            raise InputError(
                f"{launched} processes were launched but accelerate joined "
                f"{accelerator.num_processes}; start them with torchrun or accelerate launch"
            )
        if config.optimizer == "auto":
            split = accelerator.distributed_type == DistributedType.FSDP
            config = replace(config, optimizer="adamw" if split else "muon")
        trainer = Trainer(Path(data), tokenizer, Path(out), config, accelerator, resume)
        trainer.sampler = sampler
        if accelerator.is_main_process:
            trainer.progress, trainer.say = progress or trainer.progress, say or trainer.say
        return trainer.run()
    finally:
        accelerator.end_training()
        # One process may train twice with other precisions; accelerate keeps the first otherwise.
        AcceleratorState._reset_state(reset_partial_state=True)


class Trainer:
    """One run from start or checkpoint to budget; `train` is how to use it."""

    def __init__(
        self,
        data: Path,
        tokenizer: Tokenizer,
        out: Path,
        config: TrainConfig,
        accelerator: Accelerator,
        resume: bool,
    ) -> None:
        self.tokenizer, self.out, self.config, self.accelerator = (
            tokenizer,
            out,
            config,
            accelerator,
        )
        self.main = accelerator.is_main_process
        self.progress: Progress = lambda done, total, note: None
        self.say: Callable[[str], None] = lambda line: None
        self.sampler: Sampler | None = None
        self.state = State()
        self.stop = Stop()
        tokens = load_tokens(data, tokenizer, "train")
        self.held_out: TokenSet | None = None
        if config.eval_images:
            self.held_out = load_tokens(data, tokenizer, "validation", limit=config.eval_images)
        length = config.max_length or -(-int(tokens.lengths.max()) // 64) * 64
        self.init = _begin_with(config.init, tokenizer) if config.init else None
        if self.init:
            self.shape = like(self.init.config, length)
        else:
            self.shape = preset(config.preset, tokenizer.vocab_size, length, **config.model)
        self.loader = TrainingLoader(
            tokens,
            config.packing,
            config.batch_tokens,
            length,
            config.seed,
            accelerator.process_index,
            accelerator.num_processes,
            bos=tokenizer.bos,
            class_dropout=config.class_dropout,
        )
        self.steps = config.steps
        if config.epochs:
            passes = config.epochs * self.loader.steps_per_epoch / config.gradient_accumulation
            self.steps = max(1, round(passes))
        self.checkpoints = Checkpoints(out / "checkpoints", config.keep)
        self._claim_folder(data, tokens, resume)
        self._build(length)

    # Start

    def _claim_folder(self, data: Path, tokens: TokenSet, resume: bool) -> None:
        """Check that `out` is free or holds this very run; then write its config.json."""
        about = {
            "settings": self.config.to_dict(),
            "steps": self.steps,
            "model": self.shape,
            "parameters": parameters(self.shape),
            "tokenizer": self.tokenizer.fingerprint,
            "codec": self.tokenizer.codec.to_dict(),
            "data": {
                "path": str(data),
                "fingerprint": _data_fingerprint(tokens, self.held_out),
                "pictures": len(tokens),
                "tokens": len(tokens.tokens),
                "too_long": self.loader.n_dropped,
                "validation_pictures": len(self.held_out) if self.held_out else 0,
            },
            "processes": self.accelerator.num_processes,
            "device": str(self.accelerator.device),
            "hardware": _hardware(self.accelerator.device),
            "precision": self.accelerator.mixed_precision,
            "versions": versions(*PACKAGES),
            "commit": commit(),
        }
        if self.main:
            claim(self.out, RUN)
        file = self.out / "config.json"
        if file.exists():
            if not resume:
                raise InputError(f"{self.out} holds a run already; choose another folder")
            refuse_other_run(self.out, read_json(file), about, FREE, _facts)
        self.accelerator.wait_for_everyone()
        if self.main:
            remove_halves(self.out, RUN.names)
            for folder in (self.checkpoints.folder, self.out / "samples"):
                remove_halves(folder, ("step-*", "last.json"))
            self.checkpoints.remove_old()
            write_json(file, about)
        self.accelerator.wait_for_everyone()

    def _build(self, length: int) -> None:
        config, accelerator = self.config, self.accelerator
        cpu = accelerator.device.type == "cpu"
        short = cpu and length <= SHORT and accelerator.mixed_precision == "bf16"
        model = build(self.shape, config.seed, "short" if short else "sdpa")
        torch.manual_seed(config.seed)
        saved = self._read_last(model)
        if self.init and not saved:
            _load_weights(model, self.init.folder, self.init.config)
        # The order matters: checkpointing changes the layers, compile traces them, DDP or FSDP
        # wraps the result (accelerate's prepare).
        if config.activation_checkpointing:
            # transformers 5.23 renames it, older ones know only the old name.
            old = model.gradient_checkpointing_enable
            getattr(model, "activation_checkpointing_enable", old)({"use_reentrant": False})
        objective = Objective(model)
        if config.compile == "on" or (
            config.compile == "auto" and accelerator.device.type == "cuda"
        ):
            # Rows of chunks have one shape, but for the last batch of an epoch.
            objective.compile(dynamic=config.packing == "pictures")
        self.sharded = accelerator.distributed_type == DistributedType.FSDP
        if config.ema and self.sharded:
            raise InputError("ema is kept on whole weights; set it to 0 under FSDP")
        if config.optimizer == "muon" and self.sharded:
            raise InputError("muon works on whole matrices; choose the optimizer adamw under FSDP")
        self.objective, *wrapped = accelerator.prepare(objective, *optimizers(model, config))
        self.optimizers: list[torch.optim.Optimizer] = [one.optimizer for one in wrapped]
        self.model: Any = accelerator.unwrap_model(self.objective).model
        self.window = torch.zeros((), dtype=torch.float64 if cpu else torch.float32)
        self.window = self.window.to(accelerator.device)
        self.ema: dict[str, torch.Tensor] = {}
        if config.ema:
            self.ema = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        if saved:
            self._restore(saved)

    def _read_last(self, model: torch.nn.Module) -> dict[str, Any] | None:
        """Load the last checkpoint's weights; returns its training state, None at a new start."""
        folder = self.checkpoints.last()
        if folder is None:
            return None
        try:
            _load_weights(model, folder, self.shape)
            return torch.load(folder / "training_state.pt", map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(
                f"cannot go on from {folder}: {error}; point {self.checkpoints.pointer} to another "
                "checkpoint or train into a new folder"
            ) from error

    def _restore(self, saved: dict[str, Any]) -> None:
        options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
        dcp.set_optimizer_state_dict(
            self.objective, self.optimizers, saved["optimizer"], options=options
        )
        self.state = State(**saved["state"])
        self.window.fill_(self.state.window_nats / self.accelerator.num_processes)
        self.loader.seek(saved["data"])
        for name, average in saved["ema"].items():
            self.ema[name].copy_(average)
        torch.set_rng_state(saved["rng"])
        if self.accelerator.device.type == "cuda" and len(saved["cuda_rng"]):
            torch.cuda.set_rng_state(saved["cuda_rng"])

    # Loop

    def run(self) -> dict[str, Any]:
        """Train until the budget is used up or someone asks to stop."""
        state, config = self.state, self.config
        resumed = state.step
        saved_at = resumed or -1
        if resumed:
            self.say(f"going on from step {resumed} of {self.out}")
        started, before = time.monotonic(), state.seconds
        batches = ahead(iter(self.loader))
        self.objective.train()
        log: Any = open_metrics(self.out, resumed) if self.main else nullcontext()
        with stop_on_signals() as self.stop, log as self.metrics:
            while True:
                state.seconds = before + time.monotonic() - started
                batch = [next(batches) for _ in range(config.gradient_accumulation)]
                tokens, images, seconds, asked = self._agree(batch)
                share = self._share(seconds)
                if asked or share >= 1:
                    break
                clock = time.monotonic()
                self._step(batch, tokens, config.rate(state.step, share))
                state.step += 1
                state.tokens += tokens
                state.images += images
                state.window_tokens += tokens
                state.window_seconds += time.monotonic() - clock
                total = self.steps or (round(state.step / share) if share > 0.001 else None)
                if state.step % config.log_every == 0:
                    self.progress(state.step, total, self._log())
                if state.step % config.eval_every == 0:
                    self._evaluate()
                if state.step % config.save_every == 0 and state.step != self.steps:
                    state.seconds = before + time.monotonic() - started
                    self._save()
                    saved_at = state.step
            stopped = share < 1
            if not stopped:
                if state.window_tokens:
                    self._log()
                if state.evaluated != state.step:
                    self._evaluate()
                    saved_at = -1
            if saved_at != state.step:
                self._save()
        if stopped:
            self.say(f"stopped after step {state.step}; the same command goes on from there")
        return self._result(stopped)

    def _agree(self, batch: list[dict[str, np.ndarray]]) -> tuple[int, int, float, bool]:
        """(target tokens, pictures ended, seconds, stop asked) of the step over all processes.

        Every process must take the same decisions, so clocks are averaged and wishes shared.
        """
        targets = [part["labels"][:, 1:] for part in batch]
        local = [
            float(sum((target >= 0).sum() for target in targets)),
            float(sum((target == self.tokenizer.eos).sum() for target in targets)),
            self.state.seconds / self.accelerator.num_processes,
            float(bool(self.stop)),
        ]
        if self.accelerator.num_processes > 1:
            # float32 is exact to 2**24, which is more tokens than a step has.
            kind = torch.float32
            shared = torch.tensor(local, dtype=kind, device=self.accelerator.device)
            local = cast(torch.Tensor, self.accelerator.reduce(shared, "sum")).tolist()
        return int(local[0]), int(local[1]), local[2], local[3] > 0

    def _share(self, seconds: float) -> float:
        """How much of the budget is used up."""
        by_steps = self.state.step / self.steps if self.steps else 0.0
        by_time = seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return max(by_steps, by_time)

    def _step(self, batch: list[dict[str, np.ndarray]], tokens: int, rate: float) -> None:
        accelerator, config = self.accelerator, self.config
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        for index, part in enumerate(batch):
            last = index + 1 == len(batch)
            with nullcontext() if last else accelerator.no_sync(self.objective):
                loss = self.objective(*self._inputs(part))
                # DDP averages over processes; the sum over all of them is wanted.
                accelerator.backward(loss * (accelerator.num_processes / tokens))
            self.window += loss.detach()
        self.norm = accelerator.clip_grad_norm_(
            self.objective.parameters(), config.clip or math.inf
        )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.rate = rate
        if self.ema:
            # Young averages would otherwise remember the initial weights.
            decay = min(config.ema, (1 + self.state.step) / (10 + self.state.step))
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.ema.values()), list(self.model.parameters()), 1 - decay
                )

    def _inputs(self, part: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, targets = part["input_ids"][:, :-1], part["labels"][:, 1:]
        device = self.accelerator.device
        return (
            torch.from_numpy(np.ascontiguousarray(ids)).to(device, non_blocking=True),
            torch.from_numpy(np.ascontiguousarray(targets)).to(device, non_blocking=True),
        )

    def _log(self) -> str:
        """Write the mean loss since the last row, and begin a new window."""
        state = self.state
        nats = float(cast(torch.Tensor, self.accelerator.reduce(self.window, "sum")))
        loss = nats / state.window_tokens
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is {loss} at step {state.step} of {self.out}; lower the learning rate "
                f"({self.rate:.2g}) or use precision float32, and train into a new folder"
            )
        speed = state.window_tokens / max(state.window_seconds, 1e-9)
        row = {
            "step": state.step,
            "loss": loss,
            "learning_rate": self.rate,
            "gradient_norm": float(self.norm),
            "tokens": state.tokens,
            "images": state.images,
            "seconds": round(state.seconds, 3),
            "tokens_per_second": round(speed, 1),
        }
        self._record(row)
        self.window.zero_()
        state.window_tokens, state.window_seconds = 0, 0.0
        return f"loss {loss:.3f}, {speed:,.0f} tokens/s"

    # Evaluation

    def _evaluate(self) -> None:
        """Bits of the held-out pictures; the best weights so far become OUT/model."""
        state = self.state
        state.evaluated = state.step
        self.objective.eval()
        with self._averaged():
            bits = self._validate() if self.held_out is not None else None
            if bits is None or bits < state.best:
                state.best = state.best if bits is None else bits
                state.best_step = state.step
                self._write_model(self.out / "model", "bfloat16")
            self._draw()
        self.objective.train()
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def _validate(self) -> float:
        held_out, accelerator = cast(TokenSet, self.held_out), self.accelerator
        longest = int(held_out.lengths.max())
        nats = torch.zeros((), dtype=torch.float32, device=accelerator.device)
        batches = list(
            validation_batches(held_out, max(self.config.batch_tokens, longest), longest)
        )
        # FSDP gathers weights in every forward pass, so all processes need equally many: the
        # surplus ones repeat the last batch with weight 0.
        ranks = accelerator.num_processes
        # Uncompiled: a few batches of shapes of their own would each be compiled for half a minute.
        with torch.compiler.set_stance("force_eager"):
            for first in range(0, len(batches), ranks):
                index = first + accelerator.process_index
                part = batches[min(index, len(batches) - 1)]
                nats += self.objective(*self._inputs(part)) * float(index < len(batches))
        total = float(cast(torch.Tensor, accelerator.reduce(nats, "sum")))
        bits = total / math.log(2) / len(held_out)
        row = {
            "step": self.state.step,
            "validation_loss": total / int(held_out.lengths.sum() - len(held_out)),
            "bits_per_image": bits,
            "bits_per_pixel": bits / self.tokenizer.codec.pixels,
            "validation_pictures": len(held_out),
        }
        self._record(row)
        self.say(
            f"step {self.state.step}: {bits:.1f} bits an image, "
            f"{row['bits_per_pixel']:.4f} bits a pixel on {len(held_out)} held-out pictures"
        )
        return bits

    def _draw(self) -> None:
        if not (self.main and self.sampler and self.config.samples) or self.sharded:
            return
        with torch.no_grad(), torch.random.fork_rng():
            sheet = self.sampler(self.model, self.tokenizer, self.config.samples, self.config.seed)
        if sheet is None:
            return
        import io

        file = io.BytesIO()
        sheet.convert("RGB").save(file, format="PNG")
        atomic_write(self.out / "samples" / f"step-{self.state.step:06d}.png", file.getvalue())
        picture = np.asarray(sheet.convert("RGB"))
        self.metrics.picture(picture, self.state.step)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the model's place, where there are any."""
        pairs = [(p, self.ema[name]) for name, p in self.model.named_parameters() if self.ema]
        for parameter, average in pairs:
            parameter.data, average.data = average.data, parameter.data
        try:
            yield
        finally:
            for parameter, average in pairs:
                parameter.data, average.data = average.data, parameter.data

    # Files

    def _write_model(self, folder: Path, dtype: str) -> None:
        """A checkpoint folder of the present weights; every process takes part."""
        options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = dcp.get_model_state_dict(self.objective, options=options)
        if self.main:
            named = {name.removeprefix("model."): value for name, value in weights.items()}
            if self.shape["tie_word_embeddings"]:
                named.pop("lm_head.weight", None)
            write_checkpoint(
                folder, named, self.shape, self.tokenizer, self._card(), PAPER_SAMPLING, dtype
            )

    def _save(self) -> None:
        """Weights, optimizer and position as checkpoints/step-N, then the pointer to it."""
        options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=True)
        optimizer = dcp.get_optimizer_state_dict(self.objective, self.optimizers, options=options)
        self.state.window_nats = float(
            cast(torch.Tensor, self.accelerator.reduce(self.window, "sum"))
        )
        folder = self.checkpoints.place(self.state.step)
        ours = CHECKPOINT.names
        with atomic_folder(folder, ours) if self.main else nullcontext(folder) as draft:
            self._write_model(draft, "float32")
            if self.main:
                values = {
                    "state": asdict(self.state),
                    "optimizer": optimizer,
                    "data": self.state.step * self.config.gradient_accumulation,
                    "ema": {name: average.cpu() for name, average in self.ema.items()},
                    "rng": torch.get_rng_state(),
                    "cuda_rng": torch.cuda.get_rng_state()
                    if self.accelerator.device.type == "cuda"
                    else torch.zeros(0, dtype=torch.uint8),
                }
                save_state(draft / "training_state.pt", values)
        if self.main:
            self.metrics.sync()
            self.checkpoints.wrote(self.state.step)
        self.accelerator.wait_for_everyone()

    def _record(self, row: dict[str, Any]) -> None:
        if self.main:
            self.metrics.write(row)

    # Words

    def _card(self) -> str:
        state, codec = self.state, self.tokenizer.codec
        best = f"{state.best:.1f} bits an image" if math.isfinite(state.best) else "not evaluated"
        begun = f", begun with the weights of {self.config.init}" if self.config.init else ""
        return (
            f"# Llama on {codec.name}\n\n"
            f"A Llama language model of {parameters(self.shape):,} parameters that writes "
            f"{codec.name} streams, token by token; written by `jpeglm train`.\n\n"
            f"- step {state.step}, {state.images:,} pictures and {state.tokens:,} tokens seen"
            f"{begun}\n"
            f"- held-out pictures, best so far: {best}\n"
            f"- codec: `{json.dumps(codec.to_dict())}`\n"
            f"- tokenizer: {self.tokenizer.fingerprint}, {self.tokenizer.alphabet.name}, "
            f"{self.tokenizer.vocab_size} tokens\n"
            f"- settings: `{json.dumps(self.config.to_dict())}`\n"
            f"- jpeglm {__version__}, commit {commit() or 'unknown'}\n\n"
            "`jpeglm complete PHOTO --checkpoint DIR` runs it; stock `transformers` loads it.\n"
        )

    def _result(self, stopped: bool) -> dict[str, Any]:
        state, pixels = self.state, self.tokenizer.codec.pixels
        model, saved = self.out / "model", self.checkpoints.last()
        known = math.isfinite(state.best)
        length = self.shape["max_position_embeddings"]
        if self.config.packing == "pictures" and state.images:
            length = round(state.tokens / state.images)
        return {
            "out": str(self.out),
            "model": str(model) if model.is_dir() else None,
            "checkpoint": str(saved) if saved else None,
            "stopped": stopped,
            "steps": state.step,
            "tokens": state.tokens,
            "images": state.images,
            "seconds": round(state.seconds, 3),
            "parameters": parameters(self.shape),
            "flops": state.tokens * flops_per_token(self.shape, length),
            "bits_per_image": state.best if known else None,
            "bits_per_pixel": state.best / pixels if known else None,
            "best_step": state.best_step,
        }


def _begin_with(init: str, tokenizer: Tokenizer) -> Checkpoint:
    """The checkpoint that a run begins with, whose ids must mean what those of the data mean."""
    found = load_checkpoint(checkpoint_folder(init))
    if found.tokenizer.fingerprint != tokenizer.fingerprint:
        told = differences(found.tokenizer.to_dict(), tokenizer.to_dict()) or "its merges"
        raise InputError(
            f"{init} was trained with another tokenizer than this one ({told}); give its own: "
            f"--tokenizer {quoted(init)}"
        )
    return found


def _load_weights(model: torch.nn.Module, folder: Path, shape: dict[str, Any]) -> None:
    """A checkpoint's weights into a model of that shape; of tied weights the file holds one."""
    weights = {
        name: torch.from_numpy(
            from_bfloat16(array) if array.dtype == np.uint16 else np.array(array, np.float32)
        )
        for name, array in read_weights(folder, shape).items()
    }
    model.load_state_dict(weights, strict=False)


def _hardware(device: torch.device) -> str:
    """The name of what computes."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def _precision(config: TrainConfig) -> str:
    """accelerate's word for the precision."""
    if config.precision != "auto":
        return {"float32": "no", "bfloat16": "bf16"}[config.precision]
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    if torch.backends.mps.is_available():
        return "no"
    # Measured at 2m on one core: 1.4 times as fast as float32 with avx512_bf16.
    return "bf16" if has_bfloat16(torch.device("cpu")) else "no"


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    """What a run that goes on must have in common with its start."""
    return {
        "codec": {name: value for name, value in record["codec"].items() if name != "fit"},
        "tokenizer": record["tokenizer"],
        "data": record["data"]["fingerprint"],
        "model": record["model"],
        "precision": record["precision"],
    }


def _data_fingerprint(tokens: TokenSet, held_out: TokenSet | None) -> str:
    """16 hex digits of the very ids that are trained and evaluated on."""
    digest = hashlib.sha256()
    for part in (tokens, held_out):
        if part is not None:
            digest.update(np.ascontiguousarray(part.offsets).data)
            digest.update(np.ascontiguousarray(part.tokens).data)
    return digest.hexdigest()[:16]
