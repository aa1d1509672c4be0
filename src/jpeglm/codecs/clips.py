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
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from jpeglm.codecs.base import PictureShape
from jpeglm.codecs.images import MOVING, fit_image, holds_more, opened
from jpeglm.config import InputError, install
from jpeglm.files import file_size

MAX_FRAME = 8192 * 8192
"""Pixels of a frame; a film that claims more is refused."""
LONGEST = 3600.0
"""Seconds that a frame may be shown: a damaged clock would give clips without end."""
ATTACHED_PICTURE, TIMED_THUMBNAILS = 1 << 10, 1 << 11
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC and AV_DISPOSITION_TIMED_THUMBNAILS."""


@runtime_checkable
class ClipShape(PictureShape, Protocol):
    """What a clip is to be: frames of width × height pixels at fps a second, fitted by `crop` or
    `pad`. A codec's settings are one."""

    @property
    def frames(self) -> int: ...

    @property
    def fps(self) -> float: ...

    @property
    def fit(self) -> str: ...


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


class Shown(NamedTuple):
    """A decoded frame and when it is seen, in seconds from the first one on."""

    begin: float
    end: float
    frame: Any
    aspect: float
    """Width of a pixel for a height of 1."""
    name: str
    """What errors call the film."""
    converter: Any
    """One for all frames: each frame's own would keep threads until rubbish is collected."""


def _film_stream(file: Any) -> Any:
    """The first video stream that moves: no cover art, and of several not one of a single frame."""
    pictures = ATTACHED_PICTURE | TIMED_THUMBNAILS
    streams = [
        stream
        for stream in file.streams.video
        if stream.codec_context is not None and not int(stream.disposition) & pictures
    ]
    if len(streams) < 2:
        return streams[0] if streams else None
    counts = {stream.index: 0 for stream in streams}
    for number, packet in enumerate(file.demux(streams)):
        counts[packet.stream.index] += packet.size > 0
        if counts[streams[0].index] > 1 or number == 1000:
            break
    chosen = next((s for s in streams if counts[s.index] > 1), streams[0])
    file.seek(0)
    return chosen


def _shown(source: Path | bytes, name: str) -> Iterator[Shown]:
    """Every decoded frame of a film."""
    av = pyav()
    if isinstance(source, Path):
        file_size(source)  # a pipe would be waited for
    opened = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        # Tags may be in any encoding, and none is asked for.
        with av.open(opened, metadata_errors="ignore") as file:
            stream = _film_stream(file)
            if stream is None:
                raise InputError(f"{name} has no video stream that can be decoded")
            ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
            aspect = float(ratio or 1)
            _refuse_large(name, stream.width, stream.height, aspect)
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            converter = av.video.reformatter.VideoReformatter()
            first: float | None = None
            last: Any = None
            begin = 0.0
            for number, frame in enumerate(file.decode(stream)):
                _refuse_large(name, frame.width, frame.height, aspect)
                time = float(frame.time) if frame.time is not None else number / rate
                first = time if first is None else first
                time = max(time - first, begin)  # a broken clock does not run backwards
                _refuse_long(name, time - begin)
                if last is not None:
                    yield Shown(begin, time, last, aspect, name, converter)
                begin, last = time, frame
            if last is not None:
                _refuse_long(name, 1 / rate)
                yield Shown(begin, begin + 1 / rate, last, aspect, name, converter)
    except InputError:
        raise
    except (av.FFmpegError, ArithmeticError, LookupError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{name} cannot be read as a video: {reason}; is it whole?") from error


def _refuse_long(name: str, seconds: float) -> None:
    if not seconds <= LONGEST:
        raise InputError(f"{name} shows a frame for {seconds:,.0f} seconds; is its clock right?")


def _refuse_large(name: str, width: int, height: int, aspect: float) -> None:
    if width * max(aspect, 1.0) * height > MAX_FRAME:
        raise InputError(
            f"{name} claims frames of {width * aspect:.0f} × {height} pixels; scale it down first"
        )


def _matrix(frame: Any) -> np.ndarray | None:
    """int32 [9]: how a container says that a frame is to be turned; None if it does not."""
    try:
        found = [
            bytes(d) for d in frame.side_data if getattr(d.type, "name", "") == "DISPLAYMATRIX"
        ]
    except ValueError:  # PyAV knows no name for another piece of side data
        turn = round(getattr(frame, "rotation", 0) or 0) % 360
        cos, sin = (round(65536 * f(np.radians(turn))) for f in (np.cos, np.sin))
        return np.array([cos, -sin, 0, sin, cos, 0, 0, 0, 1 << 30], np.int32) if turn else None
    return np.frombuffer(found[0], "<i4", 9) if found and len(found[0]) >= 36 else None


def _upright(shown: Shown) -> Image.Image:
    """The frame as players show it: square pixels, turned and mirrored as `ffmpeg` does it.

    The matrix maps (x, y) to (m0 x + m3 y, m1 x + m4 y); that it is all zero, or flattens the
    picture, is a muxer's slip and means nothing (libavutil/display.c, ffmpeg_filter.c).
    """
    try:
        frame = shown.converter.reformat(shown.frame, format="rgb24")
        image = Image.fromarray(frame.to_ndarray())
    except (pyav().FFmpegError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{shown.name} has frames that cannot be shown: {reason}") from error
    if shown.aspect != 1:
        width = max(1, round(image.width * shown.aspect))
        image = image.resize((width, image.height), Image.Resampling.LANCZOS)
    matrix = _matrix(shown.frame)
    if matrix is None:
        return image
    m0, m1, m3, m4 = (float(matrix[i]) for i in (0, 1, 3, 4))
    across, down = np.hypot(m0, m3), np.hypot(m1, m4)
    if not across or not down:
        return image
    angle = round(float(np.degrees(np.arctan2(m1 / down, m0 / across)))) % 360
    if angle in (90, 270):
        image = image.transpose(Image.Transpose.TRANSPOSE)
        mirrored, overturned = m3 < 0, m1 < 0
    elif angle in (0, 180):
        mirrored, overturned = angle == 180 and m0 < 0, m4 < 0
    else:
        return image.rotate(-angle, Image.Resampling.BILINEAR)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if overturned else image


def measure(source: Path | bytes, name: str = "the film") -> Film:
    """Length and size of a film, which is decoded for it: containers may say anything."""
    seconds, size = 0.0, (0, 0)
    for shown in _shown(source, name):
        if size == (0, 0):
            size = _upright(shown).size
        seconds = shown.end
    return Film(seconds, *size)


def read_shots(
    source: Path | bytes, shots: Sequence[Shot], shape: ClipShape, name: str = "the film"
) -> Iterator[tuple[int, np.ndarray]]:
    """(index, clip) of each shot that the film is long enough for, in the order of their ends."""
    waiting = sorted(range(len(shots)), key=lambda i: shots[i].start)
    open_: dict[int, list[np.ndarray]] = {}
    for shown in _shown(source, name):
        end = shown.end
        while waiting and shots[waiting[0]].start < end - 1e-9:
            open_[waiting.pop(0)] = []
        image: Image.Image | None = None
        for index in list(open_):
            shot, clip = shots[index], open_[index]
            view: np.ndarray | None = None
            while len(clip) < shape.frames and shot.start + len(clip) / shape.fps < end - 1e-9:
                if view is None:
                    image = image or _upright(shown)
                    view = _view(image, shot, shape)
                clip.append(view)
            if len(clip) == shape.frames:
                del open_[index]
                yield index, np.stack(clip)


def _view(image: Image.Image, shot: Shot, shape: ClipShape) -> np.ndarray:
    if shot.box is None:
        image = fit_image(image, shape.width, shape.height, shape.fit)
    else:
        left, top, right, bottom = shot.box
        box = (
            left * image.width, top * image.height,
            min(right, 1.0) * image.width, min(bottom, 1.0) * image.height,
        )  # fmt: skip
        size = (shape.width, shape.height)
        image = image.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if shot.flip else image)


def whole_clips(
    source: Path | bytes, shape: ClipShape, name: str = "the film", limit: int | None = None
) -> Iterator[np.ndarray]:
    """The film in clips one after the other, `limit` at most; what is left at its end is dropped.

    InputError if the film is too short for one.
    """
    clip: list[np.ndarray] = []
    frames = done = 0
    whole = Shot(0.0)
    for shown in _shown(source, name):
        view: np.ndarray | None = None
        while frames / shape.fps < shown.end - 1e-9:
            view = _view(_upright(shown), whole, shape) if view is None else view
            clip.append(view)
            frames += 1
            if len(clip) == shape.frames:
                yield np.stack(clip)
                clip, done = [], done + 1
                if done == limit:
                    return
    if not done:
        raise too_short(name, frames, shape)


def read_clip(source: Path | bytes, shape: ClipShape, start: float = 0.0) -> np.ndarray:
    """One clip, from `start` seconds on. InputError names the file where it cannot be."""
    name = "the film" if isinstance(source, bytes) else str(source)
    if not 0 <= start < math.inf:
        raise InputError(f"start is {start}; it is a time in {name}, in seconds from 0 on")
    shot = Shot(start)
    for _, clip in read_shots(source, [shot], shape, name):
        return clip
    left = measure(source, name).seconds - start
    raise too_short(name, max(0, int(np.ceil(left * shape.fps - 1e-9))), shape, start)


def too_short(name: str, found: int, shape: ClipShape, start: float = 0.0) -> InputError:
    return InputError(
        f"{name} gives {found} frames at {shape.fps:g} a second from {start:g} s on; "
        f"{shape.frames} are needed"
    )
