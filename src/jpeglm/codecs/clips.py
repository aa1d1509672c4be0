"""Films as people have them, made into clips uint8 [frames, height, width, 3] that a codec takes.

A clip's frame is the one that the film shows at its time, so variable and other frame rates are
resampled; frames are turned upright, audio is ignored. A film is decoded once, whatever is cut out
of it, and only the frames of unfinished clips are in memory. Needs PyAV (the extra `video`).

    for clip in whole_clips(Path("film.mp4"), AvcConfig()): ...
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from jpeglm.codecs.images import MOVING, fit_image, holds_more, opened
from jpeglm.config import InputError, install
from jpeglm.files import file_size

if TYPE_CHECKING:
    from jpeglm.codecs.avc import AvcConfig

MAX_FRAME = 8192 * 8192
"""Pixels of a frame; a film that claims more is refused."""


class Shot(NamedTuple):
    """A clip to cut out of a film: where it starts (seconds), the part of the frame that it shows
    (left, top, right, bottom as shares of 1; None: the whole, fitted), whether it is mirrored."""

    start: float
    box: tuple[float, float, float, float] | None = None
    flip: bool = False


class Film(NamedTuple):
    """seconds until the last frame ends; width and height in pixels, upright."""

    seconds: float
    width: int
    height: int


def pyav() -> Any:
    """The module `av`, or what to do without it."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise InputError(f"clips need PyAV; {install('video')}") from error
    return av


def is_picture(data: bytes) -> bool:
    """Whether a file's content is a still picture that Pillow knows; all else may be a film."""
    try:
        with opened(data):
            return not holds_more(data, MOVING)
    except (InputError, Image.DecompressionBombError):  # one that open_image refuses, in words
        return True
    except Exception:  # Pillow's readers raise whatever their parsers meet
        return False


def _shown(source: Path | bytes, name: str) -> Iterator[tuple[float, float, Any]]:
    """(begin, end, frame) of every decoded frame, seconds from the first one on."""
    av = pyav()
    if isinstance(source, Path):
        file_size(source)  # a pipe would be waited for
    opened = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        with av.open(opened) as file:
            if not file.streams.video:
                raise InputError(f"{name} has no video stream")
            stream = file.streams.video[0]
            if stream.width * stream.height > MAX_FRAME:
                raise InputError(
                    f"{name} claims frames of {stream.width} × {stream.height} pixels; scale it "
                    "down first"
                )
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            first: float | None = None
            last: Any = None
            begin = 0.0
            for number, frame in enumerate(file.decode(stream)):
                time = float(frame.time) if frame.time is not None else number / rate
                first = time if first is None else first
                time = max(time - first, begin)  # a broken clock does not run backwards
                if last is not None:
                    yield begin, time, last
                begin, last = time, frame
            if last is not None:
                yield begin, begin + 1 / rate, last
    except av.FFmpegError as error:
        reason = f"{error.strerror}; is it whole?"
        raise InputError(f"{name} cannot be read as a video: {reason}") from error


def _upright(frame: Any) -> Image.Image:
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turn = round(getattr(frame, "rotation", 0) or 0) % 360
    return image.rotate(turn, expand=True) if turn else image


def measure(source: Path | bytes, name: str = "the film") -> Film:
    """Length and size of a film, which is decoded for it: containers may say anything."""
    seconds, size = 0.0, (0, 0)
    for _, end, frame in _shown(source, name):
        if size == (0, 0):
            size = _upright(frame).size
        seconds = end
    return Film(seconds, *size)


def read_shots(
    source: Path | bytes, shots: Sequence[Shot], config: AvcConfig, name: str = "the film"
) -> Iterator[tuple[int, np.ndarray]]:
    """(index, clip) of each shot that the film is long enough for, in the order of their ends."""
    waiting = sorted(range(len(shots)), key=lambda i: shots[i].start)
    open_: dict[int, list[np.ndarray]] = {}
    for _, end, frame in _shown(source, name):
        while waiting and shots[waiting[0]].start < end - 1e-9:
            open_[waiting.pop(0)] = []
        image: Image.Image | None = None
        for index in list(open_):
            shot, clip = shots[index], open_[index]
            view: np.ndarray | None = None
            while len(clip) < config.frames and shot.start + len(clip) / config.fps < end - 1e-9:
                if view is None:
                    image = image or _upright(frame)
                    view = _view(image, shot, config)
                clip.append(view)
            if len(clip) == config.frames:
                del open_[index]
                yield index, np.stack(clip)


def _view(image: Image.Image, shot: Shot, config: AvcConfig) -> np.ndarray:
    if shot.box is None:
        image = fit_image(image, config.width, config.height, config.fit)
    else:
        left, top, right, bottom = shot.box
        box = (
            left * image.width, top * image.height,
            min(right, 1.0) * image.width, min(bottom, 1.0) * image.height,
        )  # fmt: skip
        size = (config.width, config.height)
        image = image.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if shot.flip else image)


def whole_clips(
    source: Path | bytes, config: AvcConfig, name: str = "the film", limit: int | None = None
) -> Iterator[np.ndarray]:
    """The film in clips one after the other, `limit` at most; what is left at its end is dropped.

    InputError if the film is too short for one.
    """
    clip: list[np.ndarray] = []
    frames = done = 0
    whole = Shot(0.0)
    for _, end, frame in _shown(source, name):
        view: np.ndarray | None = None
        while frames / config.fps < end - 1e-9:
            view = _view(_upright(frame), whole, config) if view is None else view
            clip.append(view)
            frames += 1
            if len(clip) == config.frames:
                yield np.stack(clip)
                clip, done = [], done + 1
                if done == limit:
                    return
    if not done:
        raise too_short(name, frames, config)


def read_clip(source: Path | bytes, config: AvcConfig, start: float = 0.0) -> np.ndarray:
    """One clip, from `start` seconds on. InputError names the file where it cannot be."""
    name = "the film" if isinstance(source, bytes) else str(source)
    if not 0 <= start < math.inf:
        raise InputError(f"start is {start}; it is a time in {name}, in seconds from 0 on")
    shot = Shot(start)
    for _, clip in read_shots(source, [shot], config, name):
        return clip
    left = measure(source, name).seconds - start
    raise too_short(name, max(0, int(np.ceil(left * config.fps - 1e-9))), config, start)


def too_short(name: str, found: int, config: AvcConfig, start: float = 0.0) -> InputError:
    return InputError(
        f"{name} gives {found} frames at {config.fps:g} a second from {start:g} s on; "
        f"{config.frames} are needed"
    )
