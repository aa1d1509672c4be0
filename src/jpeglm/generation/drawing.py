"""Token ids drawn without a `Model` around the engine: for previews of training, and for tests."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from jpeglm.config import Sampling
from jpeglm.generation.engine import Engine
from jpeglm.generation.matcher import Constraint, Prompt
from jpeglm.generation.requests import Event, Request
from jpeglm.generation.session import Session

__all__ = ["draw_ids"]


def draw_ids(
    engine: Engine,
    constraint: Constraint,
    prompt: Prompt,
    n: int,
    sampling: Sampling,
    seed: int = 0,
    max_tokens: int | None = None,
    batch: int = 16,
) -> tuple[list[np.ndarray], list[float]]:
    """(ids, bits) of n continuations of one prompt, in a session of their own."""
    requests = (Request(prompt, sampling, seed, i, max_tokens) for i in range(n))
    found: dict[int, Event] = {}
    with closing(Session(engine, constraint).run(requests, batch)) as events:
        for event in events:
            found[event.request.picture] = event
    return [found[i].ids for i in range(n)], [found[i].bits for i in range(n)]
