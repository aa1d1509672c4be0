"""What others take for a run's held-out pictures: their own entropy code, and the model that ships.

Trade-off: `huffman` is the streams' scans as they stand, with whatever restart markers the data
have, since token shards know no more than lengths; `evaluate likelihood` recodes them without, and
has the best rivals.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from jpeglm.checkpoint import Checkpoint, load_checkpoint
from jpeglm.codecs import AvcCodec, JpegCodec
from jpeglm.config import InputError
from jpeglm.data.loader import load_tokens, validation_batches
from jpeglm.data.token_set import TokenSet
from jpeglm.files import read_json
from jpeglm.models.llama import build, like
from jpeglm.places import checkpoint_folder, shipped_checkpoints
from jpeglm.syntax.alphabet import EOI
from jpeglm.tokenizer import Tokenizer
from jpeglm.training.job import Job, Objective
from jpeglm.training.saving import load_weights


def baselines(job: Job) -> dict[str, float]:
    """Bits an image by name, on the first process: the streams' own code, and the shipped
    checkpoint of the same codec and size, unless the run begins with it."""
    if not job.main or job.held_out is None:
        return {}
    found = {job.code: float(job.code_bits.mean())}
    for folder in shipped_checkpoints():
        if read_json(folder / "codec.json")["codec"]["codec"] != job.tokenizer.codec.name:
            continue  # what it needs may not be installed
        if Tokenizer.load(folder).codec.fingerprint != job.tokenizer.codec.fingerprint:
            continue
        if job.config.init and checkpoint_folder(job.config.init) == folder:
            continue
        shipped = load_checkpoint(folder)
        try:
            bits = shipped_bits(job, shipped)
        except ModuleNotFoundError as error:  # other tokens are made with numba
            job.say(f"the shipped model {folder.name} is not measured: {error.name} is missing")
            continue
        except InputError as error:  # token shards may lie without the streams that they are of
            job.say(f"the shipped model {folder.name} is not measured: {error}")
            continue
        if bits is not None:
            found[folder.name] = float(bits.mean())
    return found


def code_bits(tokenizer: Tokenizer, streams: TokenSet | None) -> tuple[str, np.ndarray]:
    """(entropy code, float64 [streams]): what the streams take in it. Of H.264 headers are part."""
    sizes = np.zeros(0) if streams is None else streams.stream_bits.astype(np.float64)
    codec = tokenizer.codec
    if isinstance(codec, JpegCodec):
        return "huffman", sizes - 8 * (len(codec.header) + len(EOI)) * (sizes > 0)
    if isinstance(codec, AvcCodec):
        return "cavlc", sizes
    return "fixed-length", np.full(len(sizes), codec.units * math.log2(tokenizer.alphabet.size))


def shipped_bits(job: Job, shipped: Checkpoint) -> np.ndarray | None:
    """float64 [pictures] of a shipped checkpoint on the held-out pictures of the run, in its own
    tokens; None if one is longer than its context."""
    tokens = job.held_out
    if shipped.tokenizer.fingerprint != job.tokenizer.fingerprint:
        limit = job.config.eval_images
        tokens = load_tokens(job.data, shipped.tokenizer, "validation", limit=limit)
    assert tokens is not None
    context = shipped.config["max_position_embeddings"]
    tokens = tokens.fitted(context)[0]
    if int(tokens.lengths.max()) > context:
        return None
    shape = like(shipped.config, context)
    model = build(shape, 0)
    load_weights(model, shipped.folder, shape)
    return _bits(job, Objective(model).to(job.accelerator.device).eval(), tokens)


@torch.no_grad()
def _bits(job: Job, objective: Objective, tokens: TokenSet) -> np.ndarray:
    found = np.zeros(len(tokens))
    longest = int(tokens.lengths.max())
    for part in validation_batches(tokens, max(job.config.batch_tokens, longest), longest):
        with job.accelerator.autocast():
            nats = objective(*job.inputs(part))
        found[part["index"]] = nats.double().cpu().numpy() / math.log(2)
    return found
