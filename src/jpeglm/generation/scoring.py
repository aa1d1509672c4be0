"""What streams cost under a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from jpeglm.generation.given import Given
from jpeglm.generation.matcher import bare_prompt
from jpeglm.generation.pictures import Progress, Score
from jpeglm.generation.requests import Request
from jpeglm.generation.session import Session


def read_streams(
    session: Session,
    streams: Sequence[bytes],
    labels: Sequence[int | str | None] | None = None,
    texts: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> list[Score]:
    """`Score` of each canonical stream behind its label and text; EOS is counted, those are not."""
    tokenizer = session.constraint.tokenizer
    eos, none = tokenizer.eos, [None] * len(streams)

    def requests() -> Iterator[Request]:
        told = zip(streams, labels or none, texts or none)
        for number, (stream, label, text) in enumerate(told):
            ids = np.concatenate([tokenizer.encode_stream(stream), [eos]])
            yield Request(bare_prompt(tokenizer.head(label, text)), Given(ids), tag=number)

    found: dict[int, Score] = {}
    before = session.tokens
    for event in session.run(requests()):
        reading = event.reading
        assert reading is not None
        bits, legal = reading.costs / np.log(2)
        units = tokenizer.codec.units
        found[event.request.tag] = Score(event.ids, bits, legal, reading.units, units)
        if progress:
            progress(len(found), len(streams), session.tokens - before)
    return [found[number] for number in range(len(streams))]
