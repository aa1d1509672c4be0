"""Sample pictures of a model in training: new ones above, completions below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jpeglm.compiling import compiling
from jpeglm.config import InputError, Sampling
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.engine_torch import TorchEngine
from jpeglm.generation.loading import FUNCTIONS
from jpeglm.generation.matcher import Constraint, Prompt, bare_prompt, make_prompt
from jpeglm.generation.sheets import strips

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from jpeglm.data.open import Stream
    from jpeglm.tokenizer import Tokenizer


def draw(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    n: int,
    seed: int,
    held_out: Sequence[Stream] = (),
) -> Image.Image | None:
    """A sheet of what a LlamaForCausalLM in eval mode draws under the grammar.

    First row: n new pictures, to the captions of held-out ones where those have some. Then, for
    two held-out streams, the original and two completions of its first half. None where the context
    is too short for any picture to end.
    """
    engine, constraint = TorchEngine(model), Constraint(tokenizer)
    with compiling(FUNCTIONS[tokenizer.codec.media]):  # the first time on a machine
        return _sheet(model, engine, constraint, n, seed, held_out)


def _sheet(
    model: LlamaForCausalLM,
    engine: TorchEngine,
    constraint: Constraint,
    n: int,
    seed: int,
    held_out: Sequence[Stream],
) -> Image.Image | None:
    tokenizer = constraint.tokenizer

    def images(prompt: Prompt, count: int) -> list[Any]:
        drawn, _ = draw_ids(engine, constraint, prompt, count, Sampling(), seed)
        head = tokenizer.decode(prompt.ids)
        streams = [
            tokenizer.alphabet.join(np.concatenate([head, tokenizer.decode(ids)])) for ids in drawn
        ]
        return [tokenizer.codec.show(stream) for stream in streams]

    # Training may attend through products that know no cache.
    attention = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        texts = [row.text for row in held_out if row.text and tokenizer.text]
        if texts:
            tiles = [
                (text[:28], images(bare_prompt(tokenizer.head(text=text)), 1)[0])
                for text in texts[:n]
            ]
        else:
            new = images(bare_prompt(tokenizer.bos), n)
            tiles = [(f"sample {i}", image) for i, image in enumerate(new)]
        for i, row in enumerate(held_out[:2]):
            prefix = tokenizer.alphabet.prefix(row.stream, tokenizer.codec.units // 2)
            head = tokenizer.head(text=row.text if tokenizer.text else None)
            completed = images(make_prompt(tokenizer, prefix, head), 2)
            tiles.append((f"held out {i}", tokenizer.codec.decode(row.stream)))
            tiles += [(f"its rest {j}", image) for j, image in enumerate(completed)]
    except InputError:
        return None
    finally:
        model.set_attn_implementation(attention)
    return strips(tiles)
