"""What a server does with a model before it answers: every kind of request once, on a flat picture.

    warm_up(load("photos"))

`load` has drawn already. What is read for its cost, filled or looked into uses kernels of its own,
which are compiled or loaded when they are first called; the request that came first would pay for
it, and all that are drawn beside it would stand still.
"""

from __future__ import annotations

import numpy as np

from jpeglm.compiling import compiling
from jpeglm.config import InputError
from jpeglm.generation.given import Given
from jpeglm.generation.model import Model
from jpeglm.generation.requests import Request
from jpeglm.inspection.tokens import read_choices

__all__ = ["FUNCTIONS", "warm_up"]

FUNCTIONS = 9
"""That a first run compiles here, at most."""


def warm_up(model: Model) -> None:
    """Load or compile what a request may need; where the model's context is too short for a flat
    picture, the first request pays."""
    stream = model.codec.encode(model.codec.blank())
    tokenizer, prompts = model.tokenizer, model.prompts
    with compiling(FUNCTIONS, "a few seconds"):
        try:
            bare = prompts.bare(None, None)
            ids = np.concatenate([tokenizer.encode_stream(stream), [tokenizer.eos]])
            requests = [Request(bare, Given(ids))]
            if tokenizer.addresses and model.codec.units > 1:
                hole = np.arange(model.codec.units) == model.codec.units - 1
                around = prompts.around(stream, hole, None, None)
                requests.append(Request(around, model.sampling(around)))
                own = tokenizer.around(tokenizer.alphabet.split(stream), hole)[1][1:]
                ids = np.concatenate([own, [tokenizer.eos]])
                requests.append(Request(around, Given(ids)))
            for event in model.session.run(requests):  # and shown, as far as it is
                tokenizer.decode_stream(np.concatenate([event.request.prompt.ids, event.ids]))
            for _ in read_choices(model, stream):
                pass
        except InputError:
            return
