"""How a run begins: its data, its folder, its model, or the checkpoint to go on from."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate import Accelerator

from jpeglm.checkpoint import Checkpoint, load_checkpoint
from jpeglm.config import InputError, differences
from jpeglm.data.arrange import arranger
from jpeglm.data.loader import TrainingLoader, load_tokens
from jpeglm.data.token_set import TokenSet, together
from jpeglm.environment import commit, processor, versions
from jpeglm.files import read_json, remove_halves, write_json
from jpeglm.folders import RUN, claim, quoted
from jpeglm.launch import machines
from jpeglm.models.llama import like, parameters, preset
from jpeglm.places import checkpoint_folder
from jpeglm.training import AUTO, TrainConfig
from jpeglm.training.background import Background
from jpeglm.training.baselines import code_bits
from jpeglm.training.choice import advice, attention, resolve
from jpeglm.training.job import Job
from jpeglm.training.parallel import strategy_of
from jpeglm.training.run import (
    PACKAGES,
    Checkpoints,
    alone,
    identity_of,
    refuse_foreign,
    refuse_other_run,
    source,
)
from jpeglm.training.saving import read_last, restore, resuming
from jpeglm.training.wrapping import wrapped

if TYPE_CHECKING:
    from jpeglm.tokenizer import Tokenizer

PICTURES = 4
"""Pictures of mean length that a row of several holds at least: an eighth of it is padding then."""
FREE = (
    "steps", "epochs", "minutes", "log_every", "eval_every", "save_every", "samples", "keep",
    "threads", "compile", "activation_checkpointing", "strategy", "replicas",
)  # fmt: skip
"""Settings that a resumed run may change: the budget, which sets the learning rate from then on,
and what no loss depends on but by rounding."""


def start(
    data: Path,
    tokenizer: Tokenizer,
    out: Path,
    config: TrainConfig,
    accelerator: Accelerator,
    resume: bool,
    held: ExitStack,
) -> Job:
    """Data and model of a run, new or where it was left; claims `out` for it, and for it alone
    until `held` is closed."""
    if config.optimizer == AUTO:
        config = replace(config, optimizer="muon")
    strategy = strategy_of(config, accelerator)
    config = packed(config, accelerator)
    tokens = load_tokens(data, tokenizer, "train")
    held_out = None
    if config.eval_images:
        held_out = load_tokens(data, tokenizer, "validation", limit=config.eval_images)
    holes = None
    if config.fim:
        tokenizer = tokenizer.with_holes()
        holes = arranger(tokenizer), tokenizer.hole
    # A hole may take each address once, and its own token.
    longest = int(tokens.lengths.max()) + (tokenizer.addresses + 1 if config.fim else 0)
    # Drawing keeps room for the shortest end that the grammar knows, which no merges make shorter.
    grammar = tokenizer.alphabet.grammar()
    flat = grammar.shortest(grammar.start()) + 2  # with BOS and EOS
    length = config.max_length or -(-max(longest, flat + int(tokens.text.max())) // 64) * 64
    if config.packing == "rows" and not config.max_length:
        length = row_length(length, PICTURES * float(tokens.lengths.mean()), config)
    cut = 0
    if config.packing != "chunks":
        tokens, cut = tokens.fitted(length)
        held_out = held_out.fitted(length)[0] if held_out else None
    init = _begin_with(config.init, tokenizer) if config.init else None
    config, about_budget = resolve(config, out, init, tokens, length, tokenizer, accelerator)
    if init:
        shape = like(init.config, length, **config.model)
        shape |= {"vocab_size": tokenizer.vocab_size}
    else:
        shape = preset(config.preset, tokenizer.vocab_size, length, **config.model)
    loader = TrainingLoader(
        tokens,
        config.packing,
        config.batch_tokens,
        length,
        config.seed,
        accelerator.process_index,
        accelerator.num_processes,
        bos=tokenizer.bos,
        class_dropout=config.class_dropout,
        caption_dropout=config.caption_dropout,
        fim=config.fim,
        holes=holes,
    )
    steps = config.steps
    if config.epochs:
        passes = config.epochs * loader.steps_per_epoch / config.gradient_accumulation
        steps = max(1, round(passes))
    code, own_bits = code_bits(tokenizer, held_out)
    sources = held_out_sources(data, len(held_out)) if held_out else 0
    checkpoints = Checkpoints(out / "checkpoints", config.keep)
    captions = {"captions": int((tokens.text > 0).sum()), "captions_cut": cut}
    captions = captions if captions["captions"] else {}
    about = {
        "settings": config.to_dict(),
        "steps": steps,
        "advice": about_budget,
        "model": shape,
        "parameters": parameters(shape),
        "tokenizer": tokenizer.fingerprint,
        # The run's own is what its command takes by default.
        "tokenizer_path": None
        if tokenizer.folder in (None, out / "model")
        else str(tokenizer.folder),
        "codec": tokenizer.codec.to_dict(),
        "data": {
            **source(data),
            **_fingerprint(out, tokens, held_out),
            "pictures": len(tokens),
            "tokens": tokens.total,
            "too_long": loader.n_dropped,
            "validation_pictures": len(held_out) if held_out else 0,
            "validation_sources": sources,
            **captions,
        },
        "processes": accelerator.num_processes,
        "machines": machines(),
        "strategy": strategy,
        "device": str(accelerator.device),
        "hardware": _hardware(accelerator.device),
        "precision": accelerator.mixed_precision,
        "versions": versions(*PACKAGES),
        "commit": commit(),
    }
    _claim_folder(out, about, accelerator, checkpoints, resume, held)
    own = float(own_bits.mean()) if held_out else 0.0
    said = advice(config, about_budget, shape, tokens, tokenizer, own, data)
    begin = (init.folder, init.config) if init else None
    identity = identity_of(about, FREE, _facts)
    with resuming(checkpoints):
        saved = read_last(checkpoints)
        if saved:
            refuse_foreign(saved.get("run", {}), identity)
            last = cast(Path, checkpoints.last())
            begin = (last, shape) if "optimizer" in saved else None  # shares come with the rest
        objective, model, stepping = wrapped(
            shape, config, accelerator, strategy, attention(accelerator), begin
        )
    window = torch.zeros(
        (), dtype=torch.float64 if accelerator.device.type == "cpu" else torch.float32
    )
    job = Job(
        tokenizer=tokenizer,
        out=out,
        config=config,
        accelerator=accelerator,
        shape=shape,
        loader=loader,
        held_out=held_out,
        held_out_holes=held_out.holed(*holes) if held_out and holes else None,
        sources=sources,
        code=code,
        code_bits=own_bits,
        data=data,
        steps=steps,
        checkpoints=checkpoints,
        sharded=strategy == "fsdp",
        objective=objective,
        model=model,
        optimizers=stepping,
        window=window.to(accelerator.device),
        ema={name: p.detach().clone() for name, p in model.named_parameters() if config.ema},
        background=Background(sharded=strategy == "fsdp"),
        identity=identity,
        captions=captions,
        advice=said,
    )
    if saved:
        with resuming(checkpoints):
            restore(job, saved)
    if job.main:
        checkpoints.remove_old()
    return job


def packed(config: TrainConfig, accelerator: Accelerator) -> TrainConfig:
    """The same with a packing that suits the device."""
    if config.packing != "auto":
        return config
    return replace(config, packing="rows" if accelerator.device.type == "cuda" else "pictures")


def row_length(least: int, wanted: float, config: TrainConfig) -> int:
    """Tokens of a row: a share of a batch, so that rows fill it, a multiple of 8."""
    rows = max(1, int(config.batch_tokens // max(least, wanted)))
    return max(least, config.batch_tokens // rows // 8 * 8)


def held_out_sources(data: Path, streams: int) -> int:
    """How many pictures or films so many held-out streams are of, at most."""
    record = data / "dataset.json"
    known = read_json(record).get("pictures", {}) if record.exists() else {}
    return min(streams, int(known.get("validation", streams)))


def _claim_folder(
    out: Path,
    about: dict[str, Any],
    accelerator: Accelerator,
    checkpoints: Checkpoints,
    resume: bool,
    held: ExitStack,
) -> None:
    """Check that `out` is free or holds this very run; then write its config.json."""
    if accelerator.is_main_process:
        claim(out, RUN)
        held.enter_context(alone(out))
    file = out / "config.json"
    if file.exists():
        if not resume:
            raise InputError(f"{out} already holds a run; choose another folder")
        refuse_other_run(out, read_json(file), about, FREE, _facts)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        remove_halves(out, RUN.names)
        for folder in (checkpoints.folder, out / "samples"):
            remove_halves(folder, ("step-*", "last.json"))
        write_json(file, about)
    accelerator.wait_for_everyone()


def _begin_with(init: str, tokenizer: Tokenizer) -> Checkpoint:
    """The checkpoint that a run begins with, whose ids must mean what those of the data mean."""
    found = load_checkpoint(checkpoint_folder(init))
    own = found.tokenizer.with_holes() if tokenizer.addresses else found.tokenizer
    if own.fingerprint != tokenizer.fingerprint:
        told = differences(found.tokenizer.to_dict(), tokenizer.to_dict()) or "its merges"
        raise InputError(
            f"{init} was trained with another tokenizer than this one ({told}); give its own: "
            f"--tokenizer {quoted(init)}"
        )
    return found


def _hardware(device: torch.device) -> str:
    """The name of what computes."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    """What a run that goes on must have in common with its start."""
    return {
        "codec": {name: value for name, value in record["codec"].items() if name != "fit"},
        "tokenizer": record["tokenizer"],
        "data": record["data"]["fingerprint"],
        "model": record["model"],
        "precision": record["precision"],
    }


def _fingerprint(out: Path, tokens: TokenSet, held_out: TokenSet | None) -> dict[str, str]:
    """What is trained and evaluated on, in 16 hex digits: of the digests that `prepare` made of its
    shards, so that nobody reads all of it at a start. The run of an earlier version has one of the
    ids themselves, and keeps it."""
    file, parts = out / "config.json", [part for part in (tokens, held_out) if part is not None]
    known = read_json(file).get("data", {}) if file.exists() else {}
    if known and "fingerprint_of" not in known:
        return {"fingerprint": _of_ids(parts)}
    digests = together(part.digest for part in parts)
    return {"fingerprint": digests[:16], "fingerprint_of": "digests of shards"}


def _of_ids(parts: list[TokenSet]) -> str:
    """16 hex digits of all ids, and of where sequences begin and captions end."""
    digest = hashlib.sha256()
    for part in parts:
        lengths = part.lengths.astype(np.int64)
        digest.update(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]).data)
        for number in range(len(part)):
            digest.update(np.ascontiguousarray(part.ids(number)).data)
        if part.text.any():
            digest.update(np.ascontiguousarray(part.text, np.int32).data)
    return digest.hexdigest()[:16]
