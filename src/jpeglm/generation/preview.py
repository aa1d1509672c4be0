"""Sample pictures of a model in training: new ones above, completions below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jpeglm.config import InputError
from jpeglm.generation.constraint import Constraint, Prompt
from jpeglm.generation.engine_torch import TorchEngine
from jpeglm.generation.generate import run
from jpeglm.generation.outputs import contact_sheet
from jpeglm.generation.sampling import Sampling

if TYPE_CHECKING:
    from jpeglm.tokenizer import Tokenizer


def draw(model: Any, tokenizer: Tokenizer, n: int, seed: int) -> Image.Image | None:
    """A sheet of n pictures that a LlamaForCausalLM in eval mode invents under the grammar.

    None where the context is too short for any picture to end.
    """
    engine = TorchEngine(model)
    prompt = Prompt(np.array([tokenizer.bos], np.int32), np.zeros(0, np.int32))
    try:
        drawn, _ = run(engine, Constraint(tokenizer), prompt, n, Sampling(), seed)
    except InputError:
        return None
    images = [tokenizer.codec.decode(tokenizer.decode_stream(ids)) for ids in drawn]
    return contact_sheet([(f"sample {i}", image) for i, image in enumerate(images)])
