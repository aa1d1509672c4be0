"""What stands before that which a model draws: words, a class, a part of a picture."""

from __future__ import annotations

import numpy as np

from jpeglm.config import MAX_SEED, InputError, shorten, whole
from jpeglm.generation.matcher import Constraint, Prompt, bare_prompt, hole_prompt, make_prompt


class Prompts:
    """Of one model, whose context has `max_length` tokens; InputError for what it cannot begin
    with."""

    def __init__(self, constraint: Constraint, max_length: int) -> None:
        self.constraint, self.max_length = constraint, max_length
        self.tokenizer, self.codec = constraint.tokenizer, constraint.tokenizer.codec

    def bare(self, label: int | str | None, text: str | None) -> Prompt:
        """Nothing of a picture."""
        return bare_prompt(self.head(label, text))

    def head(self, label: int | str | None, text: str | None) -> np.ndarray:
        """Ids before a picture that is to be drawn; InputError where they leave it no room."""
        head = self.tokenizer.head(label, text)
        grammar = self.constraint.grammar
        room = self.max_length - grammar.shortest(grammar.start()) - 1
        if len(head) > room and len(head) > 1:
            raise InputError(
                f"the text {shorten(text)} has {len(head) - 1} tokens; the model's context leaves "
                f"{max(room - 1, 0)} beside a picture, so shorten it"
            )
        return head

    def beginning(
        self, stream: bytes, units: int, label: int | str | None, text: str | None
    ) -> Prompt:
        """The first `units` units of a canonical stream."""
        if not 0 <= whole("units", units, -MAX_SEED) <= self.codec.units:
            what = "frames" if self.codec.media == "clip" else "units"
            raise InputError(f"{units} {what} are to be kept; there are {self.codec.units}")
        prefix = self.tokenizer.alphabet.prefix(stream, units)
        return make_prompt(self.tokenizer, prefix, self.head(label, text))

    def around(
        self, stream: bytes, hole: np.ndarray, label: int | str | None, text: str | None
    ) -> Prompt:
        """What a canonical stream has outside `hole`."""
        if not self.tokenizer.addresses:
            raise InputError(
                "this checkpoint has not learnt to fill holes; train one that has with "
                "`jpeglm train DATA --fim 0.5` (--init CHECKPOINT starts from an existing one)"
            )
        if hole.shape != (self.codec.units,):
            raise InputError(f"the hole is bool {list(hole.shape)}; [{self.codec.units}] is needed")
        if not hole.any() or hole.all():
            raise InputError(
                "the mask is white in every MCU of the picture, so nothing would be kept; leave "
                "more of it black, or generate pictures instead"
                if hole.all()
                else "the mask is black in all that is taken of the picture, so there is nothing "
                "to draw; paint a part white there, or take all of it: --fit pad"
            )
        return hole_prompt(self.tokenizer, stream, hole, self.head(label, text))
