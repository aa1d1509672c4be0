"""Pictures and clips from a checkpoint: `complete` one, `generate` new ones, `score` what is there.

    import jpeglm
    model = jpeglm.load()
    pictures = model.complete(photo, keep=0.5, n=3).images
    for step in model.iterate(photo): step.image         # while it is being drawn
    model.score(photo).of_units                          # bits that each MCU costs

All of it are requests to one session (`generation.session`), from any number of threads at a time.
The same seed gives the same picture, whatever n, batch and threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from numbers import Real
from typing import Any, Literal

import numpy as np
from PIL import Image

from jpeglm.checkpoint import Checkpoint
from jpeglm.codecs.images import as_mask, as_picture, fit_image
from jpeglm.codecs.jpeg import JpegCodec
from jpeglm.config import MAX_SEED, InputError, Sampling, check_fit, check_seed, whole
from jpeglm.generation.engine import Engine
from jpeglm.generation.matcher import Constraint, Prompt, begun, conditioned, make_prompt
from jpeglm.generation.outputs import Drawn
from jpeglm.generation.pictures import Drawing, Each, Pictures, Progress, Score
from jpeglm.generation.prompts import Prompts
from jpeglm.generation.requests import Event, Request
from jpeglm.generation.scoring import read_streams
from jpeglm.generation.session import Session
from jpeglm.tokenizer import Tokenizer

__all__ = ["Model"]

KEEP = {"picture": 0.5, "clip": 2 / 3}
"""Share of what a codec codes that `complete` keeps by default."""
BATCH = 16
"""Sequences of a call that are drawn at a time."""


class Model:
    """A checkpoint with an engine, ready to draw.

    What draws takes these options too: seed; label, a class's number or name; text, what is to be
    seen in words; max_tokens of a sequence, prompt included (default the context); batch, sequences
    at a time; progress and each, as `generation.pictures` has them; and every field of
    `sampling.Sampling` by its name, default what the checkpoint's generation_config.json says.
    """

    def __init__(self, checkpoint: Checkpoint, engine: Engine) -> None:
        self.checkpoint = checkpoint
        self.tokenizer: Tokenizer = checkpoint.tokenizer
        self.codec = checkpoint.codec
        self.engine = engine
        self.constraint = Constraint(self.tokenizer)
        self.prompts = Prompts(self.constraint, engine.max_length)
        self.session = Session(engine, self.constraint)

    def __repr__(self) -> str:
        name, config = self.checkpoint.folder.name, self.checkpoint.config
        size = f"{config['num_hidden_layers']} layers of {config['hidden_size']}"
        return f"<Model {name}: {size}, {self.tokenizer}>"

    @property
    def classes(self) -> int:
        """Labels that `generate` and `complete` take; 0 for an unconditional checkpoint."""
        return self.tokenizer.n_classes

    def record(self) -> dict[str, Any]:
        """What names this model in results."""
        return {"tokenizer": self.tokenizer.fingerprint, "codec": self.codec.to_dict()}

    @property
    def weights_mark(self) -> str:
        """That of the checkpoint, by which drawn pictures are known again."""
        return self.checkpoint.weights_mark

    def warm_up(self) -> None:
        """Load or compile every kernel, so that no timed picture pays for it: a flat picture is
        given whole, which leaves a token or two to sample, and shown. Where the context is too
        short for it, the first picture pays."""
        stream = self.codec.encode(self.codec.blank())
        prefix = self.tokenizer.alphabet.prefix(stream, self.codec.units)
        prompt = make_prompt(self.tokenizer, prefix, self.tokenizer.bos)
        if len(prompt.ids) + len(prompt.forced) + 2 > self.engine.max_length:
            return
        for event in self.session.run([Request(prompt, self.sampling(prompt))]):
            self._shown(prompt, event.ids)

    def sampling(self, prompt: Prompt, **changes: Any) -> Sampling:
        """The checkpoint's sampling defaults with changes; None means unchanged. Its guidance is
        for prompts with a class or a text."""
        known = Sampling.names()
        for name in changes:
            if name not in known:
                raise InputError(f"there is no option {name!r}; sampling has {', '.join(known)}")
        values = self.checkpoint.sampling(begun(prompt))
        if not conditioned(prompt, self.tokenizer):
            values.pop("guidance", None)
        values |= {k: v for k, v in changes.items() if v is not None}
        return Sampling(**values)

    def units_kept(self, keep: float | None) -> tuple[int, float]:
        """(units, share) that `complete` keeps of a picture or clip."""
        if keep is None:
            keep = KEEP[self.codec.media]
        if not isinstance(keep, Real) or not 0 <= keep <= 1:
            raise InputError(f"keep is {keep!r}; it is a share of the picture, from 0 to 1")
        return int(keep * self.codec.units + 1e-9), keep

    def _shown(self, prompt: Prompt, ids: np.ndarray) -> tuple[bytes, Any]:
        """(stream, picture) of a prompt and the tokens behind it, as far as they go."""
        stream = self.tokenizer.decode_stream(np.concatenate([prompt.ids, ids]))
        return stream, self.codec.show(stream)

    def _draw(
        self,
        prompt: Prompt,
        n: int,
        pictures: Pictures,
        *,
        seed: int = 0,
        max_tokens: int | None = None,
        batch: int = BATCH,
        progress: Progress | None = None,
        each: Each | None = None,
        **sampling: Any,
    ) -> Pictures:
        """Fill `pictures`, whose original and prompt are known."""
        chooser = self.sampling(prompt, **sampling)
        n, batch, seed = whole("n", n, 1), whole("batch", batch, 1), check_seed(seed)
        if max_tokens is not None:
            max_tokens = whole("max_tokens", max_tokens, 1)
        pictures.codec, pictures.record = self.codec, self.record()
        pictures.settings |= {**chooser.to_dict(), "seed": seed, "n": n, "max_tokens": max_tokens}
        requests = (Request(prompt, chooser, seed, i, max_tokens, tag=i) for i in range(n))
        found: dict[int, tuple[Event, bytes, Any]] = {}
        before, aside = self.session.tokens, 0.0  # seconds spent on more than drawing

        def tick() -> None:
            if progress:
                progress(len(found), n, self.session.tokens - before)

        start = time.perf_counter()
        with closing(self.session.run(requests, batch, tick)) as events:
            for event in events:
                begun, number = time.perf_counter(), event.request.tag
                found[number] = event, *self._shown(prompt, event.ids)
                if each:
                    _, stream, image = found[number]
                    each(pictures, Drawn(number, image, stream, len(event.ids), event.bits))
                aside += time.perf_counter() - begun
        pictures.seconds = time.perf_counter() - start - aside
        pictures.prompt_tokens = len(prompt.ids)
        for number in range(n):
            event, stream, image = found[number]
            pictures.ids.append(event.ids)
            pictures.bits.append(event.bits)
            pictures.streams.append(stream)
            pictures.images.append(image)
        return pictures

    def generate(
        self,
        n: int = 1,
        *,
        label: int | str | None = None,
        text: str | None = None,
        **options: Any,
    ) -> Pictures:
        """Draw n new pictures."""
        prompt = self.prompts.bare(label, text)
        return self._draw(prompt, n, Pictures(settings={"label": label, "text": text}), **options)

    def complete(
        self,
        media: Any,
        keep: float | None = None,
        n: int = 1,
        *,
        units: int | None = None,
        fit: str | None = None,
        **options: Any,
    ) -> Pictures:
        """Keep the first floor(keep · MCUs) MCUs of a picture and draw the rest n times.

        media is what `Codec.encode` takes: a path, a file's bytes, an array or a PIL picture, of
        any size and mode; it is fitted to the codec's size first, by `fit` of `config.FITS`
        (default the codec's). Of a clip frames are kept. keep: default a half of a picture, two
        thirds of a clip; `units` gives MCUs or frames instead.
        """
        kept, share = self.units_kept(keep)
        if units is not None:
            kept, share = units, whole("units", units, -MAX_SEED) / self.codec.units
        if fit is not None and self.codec.media == "clip":
            raise InputError("fit is for pictures; a film is fitted as the model was trained")
        if self.codec.media == "clip":
            return self.continue_stream(self.codec.encode(media), kept, n, keep=share, **options)
        source = as_picture(media)
        stream = self.codec.encode(self._fitted(source, fit))
        options |= {"source": source, "keep": share, "fit": fit}
        return self.continue_stream(stream, kept, n, **options)

    def _fitted(self, picture: Image.Image, fit: str | None) -> Image.Image:
        """A picture in the codec's size, unless the codec is to do that in its own way."""
        if fit is None:
            return picture
        check_fit(fit)
        return fit_image(picture, self.codec.config.width, self.codec.config.height, fit)

    def continue_stream(
        self,
        stream: bytes,
        units: int,
        n: int = 1,
        *,
        label: int | str | None = None,
        text: str | None = None,
        source: Image.Image | None = None,
        fit: str | None = None,
        keep: float | None = None,
        **options: Any,
    ) -> Pictures:
        """Keep the first `units` units of a canonical stream and draw the rest n times. source: the
        picture that it was made of, fit: in which way, for sheets; keep: the share asked for."""
        prompt = self.prompts.beginning(stream, units, label, text)
        pictures = Pictures(
            original=stream,
            source=source,
            prompt=self.codec.cut(stream, units),
            units_kept=units,
            settings={
                "label": label,
                "text": text,
                "keep": units / self.codec.units if keep is None else keep,
                **({"fit": fit} if fit else {}),
            },
        )
        return self._draw(prompt, n, pictures, **options)

    def fill(
        self,
        media: Any,
        mask: Any,
        n: int = 1,
        *,
        fit: str | None = None,
        **options: Any,
    ) -> Pictures:
        """Draw what is white in a mask n times anew and keep the rest of a picture to the bit.

        media, mask: each what `complete` takes, of equal size, the mask also bool [H, W]; fit as
        there. MCUs are drawn whole: all that white touches. For checkpoints of `train --fim`.
        """
        if not isinstance(self.codec, JpegCodec):
            raise InputError("holes are filled in JPEG pictures alone, not with this codec")
        picture = as_picture(media)
        white = as_mask(mask, picture.size)
        stream = self.codec.encode(self._fitted(picture, fit))
        hole = self.codec.covered(white, fit)
        return self.fill_stream(stream, hole, n, source=picture, fit=fit, **options)

    def fill_stream(
        self,
        stream: bytes,
        hole: np.ndarray,
        n: int = 1,
        *,
        label: int | str | None = None,
        text: str | None = None,
        source: Image.Image | None = None,
        fit: str | None = None,
        **options: Any,
    ) -> Pictures:
        """Draw the MCUs `hole`, bool [units], of a canonical stream n times anew."""
        hole = np.asarray(hole, bool)
        prompt = self.prompts.around(stream, hole, label, text)
        pictures = Pictures(
            original=stream,
            source=source,
            prompt=self.tokenizer.decode_stream(prompt.ids),
            units_kept=int((~hole).sum()),
            settings={
                "label": label,
                "text": text,
                "hole": np.flatnonzero(hole).tolist(),
                **({"fit": fit} if fit else {}),
            },
        )
        return self._draw(prompt, n, pictures, **options)

    def continue_each(
        self,
        streams: Iterable[bytes],
        units: int,
        seeds: Iterable[int],
        labels: Iterable[int | str | None],
        **options: Any,
    ) -> Iterator[Drawn]:
        """One continuation of each stream, in the order in which they end; `Drawn.number` counts
        the streams. What `continue_stream` would draw with the same seed and label."""
        prompts = (
            self.prompts.beginning(stream, units, label, None)
            for stream, label in zip(streams, labels)
        )
        return self._draw_each(prompts, seeds, **options)

    def fill_each(
        self,
        streams: Iterable[bytes],
        holes: Iterable[np.ndarray],
        seeds: Iterable[int],
        texts: Iterable[str | None],
        **options: Any,
    ) -> Iterator[Drawn]:
        """The same of holes: what `fill_stream` would draw with the same seed and text."""
        prompts = (
            self.prompts.around(stream, np.asarray(hole, bool), None, text)
            for stream, hole, text in zip(streams, holes, texts)
        )
        return self._draw_each(prompts, seeds, **options)

    def _draw_each(
        self,
        prompts: Iterable[Prompt],
        seeds: Iterable[int],
        *,
        max_tokens: int | None = None,
        batch: int = BATCH,
        **sampling: Any,
    ) -> Iterator[Drawn]:
        requests = (
            Request(prompt, self.sampling(prompt, **sampling), seed, 0, max_tokens, tag=number)
            for number, (prompt, seed) in enumerate(zip(prompts, seeds))
        )
        with closing(self.session.run(requests, batch)) as events:
            for event in events:
                stream, image = self._shown(event.request.prompt, event.ids)
                yield Drawn(event.request.tag, image, stream, len(event.ids), event.bits)

    def iterate(
        self,
        media: Any = None,
        keep: float | None = None,
        n: int = 1,
        *,
        every: Literal["unit", "token"] = "unit",
        label: int | str | None = None,
        text: str | None = None,
        seed: int = 0,
        max_tokens: int | None = None,
        batch: int = BATCH,
        **sampling: Any,
    ) -> Iterator[Drawing]:
        """`complete` of media, or `generate` without, watched: each picture whenever another MCU
        (or frame, or token) is there. Leaving the loop ends the drawing."""
        if media is None:
            prompt = self.prompts.bare(label, text)
        else:
            prompt = self.prompts.beginning(
                self.codec.encode(media), self.units_kept(keep)[0], label, text
            )
        if every not in ("unit", "token"):
            raise InputError(f"every is {every!r}; a picture is watched by 'unit' or by 'token'")
        chooser = self.sampling(prompt, **sampling)
        requests = (
            Request(prompt, chooser, seed, i, max_tokens, watch=every, tag=i)
            for i in range(whole("n", n, 1))
        )
        ids: dict[int, list[np.ndarray]] = {}
        with closing(self.session.run(requests, whole("batch", batch, 1))) as events:
            for event in events:
                own = ids.setdefault(event.request.tag, [])
                own.append(event.ids)
                tokens = np.concatenate(own)
                yield Drawing(
                    event.request.tag, tokens, event.units, event.bits, event.ended,
                    lambda tokens=tokens: self._shown(prompt, tokens)[1],  # type: ignore[misc]
                )  # fmt: skip

    def score(self, media: Any, label: int | str | None = None, text: str | None = None) -> Score:
        """What a picture or clip costs under the model, token by token: `media` is what
        `Codec.encode` takes. −log2 p is what an arithmetic coder driven by the model would need."""
        (score,) = self.score_streams([self.codec.encode(media)], [label], [text])
        return score

    def score_streams(
        self,
        streams: Sequence[bytes],
        labels: Sequence[int | str | None] | None = None,
        texts: Sequence[str | None] | None = None,
        progress: Progress | None = None,
    ) -> list[Score]:
        """The same of canonical streams; EOS is counted, label and text are not."""
        return read_streams(self.session, streams, labels, texts, progress)
