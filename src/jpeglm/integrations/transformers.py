"""The grammar for stock `transformers`: a LogitsProcessor under which `generate` draws whole files.

    processor = GrammarProcessor(tokenizer, max_length=512)
    ids = model.generate(begin, max_length=512, do_sample=True, logits_processor=[processor])
    file = tokenizer.codec.wrap(tokenizer.decode_stream(ids[0, 1:]))

No code of ours runs inside the model, so nothing needs `trust_remote_code`. Batches may be padded
on the left, sequences returned several a prompt, beams searched. `generate` applies temperature,
top-k and top-p behind every processor, so to what the grammar has left; jpeglm takes them of the
model's own distribution and the grammar last. With `sampling` the processor does as jpeglm does.

Trade-off: a step costs the host one mask a row (some 80 µs with 1024 tokens, measured by
benchmarks/orders.py) and one copy to the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import LogitsProcessor

from jpeglm.config import InputError, Sampling, whole
from jpeglm.generation.matcher import Constraint, Matcher, Prompt
from jpeglm.integrations.following import begin
from jpeglm.tokenizer import Tokenizer

__all__ = ["GrammarProcessor", "narrowed"]


class GrammarProcessor(LogitsProcessor):
    """Leaves each row the tokens that may come next.

    tokenizer: ours, or the folder of a checkpoint or tokenizer. max_length: `generate`'s own,
    within which every stream ends; padding counts, as it does there. prompts: one for each row that
    `generate` is given, where they force more than their ids say (`matcher.make_prompt`, the spans
    of a hole); by default a row's ids are all. pad: the id of padding on the left (default EOS).
    sampling: temperature, top-k, top-p and min-p, taken here and before the grammar; `generate`
    must then be told to leave its own alone (temperature=1, top_k=0, top_p=1). InputError for
    guidance, and for sampling without the grammar.

    One processor serves any number of calls, one after another. InputError at a call's first step
    where a row begins no stream, or none can end within max_length.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | Path | str,
        max_length: int,
        prompts: Sequence[Prompt] | None = None,
        pad: int | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        own = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.load(tokenizer)
        if sampling is not None and sampling.guidance != 1:
            raise InputError(
                f"guidance is {sampling.guidance:g}, for which a processor lacks a second row; "
                "leave it out"
            )
        if sampling is not None and not sampling.grammar:
            raise InputError("sampling is without the grammar, which is all that is done here")
        self.tokenizer, self.max_length = own, whole("max_length", max_length, 1)
        if isinstance(prompts, Prompt):
            raise InputError("prompts is a single prompt; give a list, one for each row")
        self.prompts, self.sampling = prompts, sampling
        self.pad = own.eos if pad is None else whole("pad", pad, 0)
        self._constraint = Constraint(own)
        self._walks: dict[bytes, Matcher | None] = {}
        """Of each sequence that is running, by its ids; None of one that has left the grammar, as
        beams do whose scores are all -inf."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """input_ids int64 [B, T], scores float [B, V]; -inf for what may not come next. A row that
        has ended may have padding."""
        if scores.shape[-1] < self.tokenizer.vocab_size:
            raise InputError(
                f"the model has {scores.shape[-1]} tokens, the tokenizer "
                f"{self.tokenizer.vocab_size}; give the one that it was trained with"
            )
        if self.pad >= scores.shape[-1]:
            raise InputError(f"pad is {self.pad}, the model has {scores.shape[-1]} tokens")
        ids = input_ids.cpu().numpy()
        if not ids.shape[1]:
            raise InputError(f"the rows are empty; begin them with BOS ({self.tokenizer.bos})")
        walks: dict[bytes, Matcher | None] = {}
        # Rows that begin with the same ids have one walk, until they part.
        ways = Counter(begun for begun, _ in {(i[:-1].tobytes(), i[-1]) for i in ids})
        legal = np.zeros(tuple(scores.shape), bool)
        for row in range(len(ids)):
            here, before = ids[row].tobytes(), ids[row, :-1].tobytes()
            if here not in walks:
                if before in self._walks:
                    walk = self._walks[before]
                    ways[before] -= 1
                    if walk is not None:
                        walk = walk.fork() if ways[before] else walk
                        walk = walk if _goes_on(walk, int(ids[row, -1]), self.pad) else None
                else:
                    walk = self._begin(ids, row)
                walks[here] = walk
            found = walks[here]
            if found is None or found.ended:
                legal[row, self.pad] = True
            else:
                allowed = found.allowed()
                legal[row, : len(allowed)] = allowed
        self._walks = walks
        mask = torch.from_numpy(legal).to(scores.device)
        if self.sampling is not None:
            return narrowed(scores, mask, self.sampling)
        return scores.masked_fill(~mask, -torch.inf)  # type: ignore[return-value]

    def _begin(self, ids: np.ndarray, row: int) -> Matcher:
        given = ids[row]
        pads = int(np.argmax(given != self.pad))
        prompt = None
        if self.prompts is not None:
            # Several sequences of a prompt, or its beams, stand side by side.
            each, rest = divmod(len(ids), len(self.prompts) or len(ids) + 1)
            if rest or not each:
                raise InputError(f"there are {len(ids)} rows for {len(self.prompts)} prompts")
            prompt = self.prompts[row // each]
        return begin(self._constraint, given[pads:], self.max_length - pads, prompt)


def _goes_on(walk: Matcher, token: int, pad: int) -> bool:
    """Whether a walk takes a token; padding behind its end changes nothing."""
    return walk.accept(token) or (walk.ended and token == pad)


def narrowed(
    scores: torch.FloatTensor, legal: torch.Tensor, sampling: Sampling
) -> torch.FloatTensor:
    """Scores [B, V] as jpeglm samples: over the temperature, of the model's own nucleus what is
    legal, bool [B, V]; where that is nothing, the most probable legal token."""
    cold = sampling.temperature == 0
    logits = scores.float() / (1.0 if cold else sampling.temperature)
    inside = torch.ones_like(legal)
    if sampling.top_k or sampling.top_p < 1:
        order = logits.sort(dim=-1, descending=True, stable=True)
        weight = torch.softmax(order.values, dim=-1)
        if sampling.top_k:
            weight[:, sampling.top_k :] = 0
        share = weight.cumsum(-1) - weight  # of those before
        kept = (weight > 0) & (share < sampling.top_p * weight.sum(-1, keepdim=True))
        inside = torch.zeros_like(legal).scatter(-1, order.indices, kept)
    if sampling.min_p:
        peak = logits.amax(-1, keepdim=True)
        inside &= (logits - peak).exp() >= sampling.min_p
    inside &= legal
    best = logits.masked_fill(~legal, -torch.inf).argmax(-1, keepdim=True)
    alone = torch.zeros_like(legal).scatter(-1, best, True)
    nothing = ~inside.any(-1, keepdim=True)
    inside = torch.where(nothing | cold, alone, inside)
    return logits.masked_fill(~inside, -torch.inf).to(scores.dtype)  # type: ignore[return-value]
