"""The grammar as a plug-in of vLLM: whatever checkpoint of ours it serves, it writes whole files.

    pip install 'jpeglm[vllm]'     # vLLM finds the entry point `vllm.logits_processors`
    vllm serve runs/train/model --skip-tokenizer-init

    llm = LLM("runs/train/model", skip_tokenizer_init=True)
    asked = SamplingParams(max_tokens=500, detokenize=False)
    drawn = llm.generate({"prompt_token_ids": [tokenizer.bos]}, asked)

Models without a `codec.json` beside their weights are left alone, and so are requests with
`extra_args={"grammar": False}`. A stream ends within the request's max_tokens and the model's
context; where none can, or the prompt begins no stream, the request ends at once, with a warning.

vLLM has two interfaces under one entry point, and this class is both: the first model runner tells
changes of its batch by `update_state` and keeps each request's ids in a list, the second tells
requests by `add_request` and keeps ids on the device. Both apply temperature, top-k and top-p
behind the grammar, unlike jpeglm (docs/integrations.md has what that changes).

Trade-off: the walk is on the host, so a step waits for the last one's ids, and a mask of the batch
goes to the device. numba is imported with the engine, not with this module: vLLM loads plug-ins in
processes that only look at requests, and on processors without Triton it goes through the modules
of its process in a way that fails at numba's (0.32).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jpeglm.config import InputError
from jpeglm.folders import TOKENIZER
from jpeglm.integrations.hub import source_folder

if TYPE_CHECKING:
    from jpeglm.generation.matcher import Constraint, Matcher
    from jpeglm.tokenizer import Tokenizer

try:
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor
except ImportError:  # releases that have the first interface alone
    from vllm.v1.sample.logits_processor import LogitsProcessor

__all__ = ["GrammarLogitsProcessor"]

OPTION = "grammar"
"""Of a request's extra_args: false leaves it alone."""
PLACEHOLDER = -1
"""What vLLM writes for an id that the host does not have yet."""
log = logging.getLogger("vllm.jpeglm")


class Walk:
    """A request's: where it stands, and how many of its ids it has taken."""

    def __init__(self, constraint: Constraint, prompt: Sequence[int], budget: int) -> None:
        self.prompt = self.taken = len(prompt)
        from jpeglm.integrations.following import begin

        self.matcher: Matcher | None = None
        """None of a request that the grammar cannot follow: it may but end."""
        try:
            ids = np.asarray(prompt, np.int32)
            self.matcher = begin(constraint, ids, budget)
        except InputError as error:
            log.warning("a request is ended at once: %s", error)

    def take(self, ids: Sequence[int]) -> None:
        """Ids behind those that were taken."""
        from jpeglm.integrations.following import catch_up

        self.taken += len(ids)
        if self.matcher is not None and not self.matcher.ended and not catch_up(self.matcher, ids):
            log.warning("a request is ended: it has been given ids that the grammar does not allow")
            self.matcher = None


class GrammarLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """What vLLM makes of each engine."""

    def __init__(self, vllm_config: Any, where: Any, is_pin_memory: bool = False) -> None:
        """where: the device (first runner) or the state of all requests (second)."""
        from jpeglm.generation.matcher import Constraint

        self._states = where if hasattr(where, "all_token_ids") else None
        self._context = int(vllm_config.model_config.max_model_len)
        tokenizer = _tokenizer_of(str(vllm_config.model_config.model))
        self._constraint = None if tokenizer is None else Constraint(tokenizer)
        self._eos = -1 if tokenizer is None else tokenizer.eos
        self._walks: dict[int, Walk] = {}
        """By the place in the batch (first runner) or the slot (second)."""
        self._outputs: dict[int, list[int]] = {}
        """Each request's ids so far, a list that vLLM goes on writing (first runner)."""
        self._budgets: dict[int, int] = {}
        """Tokens behind the prompt, of requests whose walk is not begun (second runner)."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """ValueError for what no request may say."""
        wanted = (sampling_params.extra_args or {}).get(OPTION, True)
        if not isinstance(wanted, bool):
            raise ValueError(f"extra_args[{OPTION!r}] is {wanted!r}; it must be true or false")

    def is_argmax_invariant(self) -> bool:
        """Greedy requests need the grammar too."""
        return False

    def _wants(self, params: Any) -> bool:
        return self._constraint is not None and (params.extra_args or {}).get(OPTION, True)

    def _begin(self, prompt: Sequence[int], more: int | None) -> Walk:
        assert self._constraint is not None
        room = self._context if more is None else min(self._context, len(prompt) + more)
        return Walk(self._constraint, prompt, room)

    # The first model runner

    def update_state(self, batch_update: Any) -> None:
        """Requests have left their places, come, and moved, in this order."""
        if batch_update is None or self._constraint is None:
            return
        for place in batch_update.removed:
            self._forget(place)
        for place, params, prompt, output in batch_update.added:
            self._forget(place)
            if self._wants(params):
                self._walks[place] = self._begin(prompt or [], params.max_tokens)
                self._outputs[place] = output
        for one, other, direction in batch_update.moved:
            for table in (self._walks, self._outputs):
                moving, there = table.pop(one, None), table.pop(other, None)
                if moving is not None:
                    table[other] = moving  # type: ignore[assignment]
                if there is not None and direction.name == "SWAP":
                    table[one] = there  # type: ignore[assignment]

    def _forget(self, place: int) -> None:
        self._walks.pop(place, None)
        self._outputs.pop(place, None)

    def _followed(self, place: int) -> Matcher | None:
        """A request's walk, behind the ids that it has by now."""
        walk, output = self._walks[place], self._outputs[place]
        fresh = output[walk.taken - walk.prompt :]
        if PLACEHOLDER in fresh:
            raise RuntimeError(
                "vLLM schedules ahead of its ids, which the grammar needs; start it with "
                "async_scheduling=False (--no-async-scheduling), or name the processor too: "
                "logits_processors=['jpeglm.integrations.vllm:GrammarLogitsProcessor']"
            )
        walk.take(fresh)
        return walk.matcher

    # The second model runner

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """A request has come into a slot; its walk begins with its first logits, when the state of
        all requests has its prompt."""
        self._walks.pop(req_idx, None)
        self._budgets.pop(req_idx, None)
        if not self._wants(sampling_params):
            return False
        more = sampling_params.max_tokens
        self._budgets[req_idx] = self._context if more is None else int(more)
        return True

    def _seen(self, ctx: Any) -> list[tuple[int, Matcher | None]]:
        """(row, walk) of this step's rows; drafts of a speculation are walked ahead of it."""
        slots = ctx.expanded_idx_mapping.tolist()
        ahead, ends = ctx.expanded_local_pos.tolist(), (ctx.pos + 1).tolist()
        drafts = ctx.input_ids.tolist() if any(ahead) else []
        assert self._states is not None
        ids, lengths = self._states.all_token_ids.gpu, self._states.prompt_len.np
        found: list[tuple[int, Matcher | None]] = []
        for row, slot in enumerate(slots):
            if ahead[row]:
                before = found[-1][1] if found and slots[row - 1] == slot else None
                if before is not None:
                    before = before.fork()
                    before = before if before.accept(drafts[row]) else None
                found += [(row, before)] if slot in self._walks else []
                continue
            if slot not in self._walks and slot not in self._budgets:
                continue
            if slot not in self._walks:
                prompt = ids[slot, : int(lengths[slot])].tolist()
                self._walks[slot] = self._begin(prompt, self._budgets.pop(slot))
            walk = self._walks[slot]
            walk.take(ids[slot, walk.taken : ends[row]].tolist())
            found.append((row, walk.matcher))
        return found

    # Both

    def apply(self, logits: Any, ctx: Any = None) -> Any:
        """logits float [rows, V] in place: -inf for what may not come next."""
        import torch

        if ctx is not None:
            rows = self._seen(ctx)
        else:
            rows = [(place, self._followed(place)) for place in self._walks]
        if not rows:
            return logits
        legal = np.zeros((len(rows), logits.shape[-1]), bool)
        for number, (_, matcher) in enumerate(rows):
            if matcher is None or matcher.ended:
                legal[number, self._eos] = True
            else:
                allowed = matcher.allowed()
                legal[number, : len(allowed)] = allowed
        places = torch.tensor([row for row, _ in rows], device=logits.device)
        mask = torch.from_numpy(legal).to(logits.device)
        logits[places] = logits[places].masked_fill(~mask, -torch.inf)
        return logits


def _tokenizer_of(model: str) -> Tokenizer | None:
    """Of a folder or a name on the hub; None of a model that is not ours."""
    from jpeglm.tokenizer import Tokenizer

    try:
        local = Path(model)
        folder = local if local.is_dir() else source_folder(f"hf:{model}", TOKENIZER.names)
        if not (folder / "codec.json").exists():
            return None
        return Tokenizer.load(folder)
    except InputError as error:
        log.warning("no grammar for %s: %s", model, error)
        return None
