"""How many sampled streams are complete and valid, judged by tools that no one here wrote.

Three judges: the automaton, on the symbols as they were sampled (`complete_as_sampled`); `djpeg`,
which must decode the file without a word on stderr; `jpegtran` with the same restart interval,
which must give back the same bytes wherever the running DC stays within int16. The last two come
with libjpeg-turbo (Debian's libjpeg-turbo-progs). They see files: a sample that broke off is made
into one by `Alphabet.join`, which can only write whole pictures, so `complete_as_sampled` is the
figure that tells models apart. Clips are judged by PyAV and by the program `ffmpeg`, both with
FFmpeg's strictest error detection.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.codecs import AvcCodec, JpegCodec
from jpeglm.codecs.avc import STRICT, complaints
from jpeglm.config import InputError, Sampling
from jpeglm.generation.model import Model
from jpeglm.syntax.machine import accepts

Progress = Callable[[int, int, str], None]


def judge(codec: JpegCodec, streams: Sequence[bytes]) -> dict[str, int]:
    """How many streams libjpeg-turbo takes without a word, and gives back unchanged."""
    counts = {"streams": len(streams), "djpeg_silent": 0, "jpegtran_identical": 0,
              "canonical": 0, "dc_leaves_int16": 0, "differs_though_dc_fits": 0}  # fmt: skip
    interval = codec.config.restart_interval
    option = ["-restart", f"{interval}B"] if interval else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.jpg"
        for stream in streams:
            file.write_bytes(codec.wrap(stream))
            shown = subprocess.run(["djpeg", str(file)], capture_output=True)
            counts["djpeg_silent"] += shown.returncode == 0 and not shown.stderr
            again = subprocess.run(
                ["jpegtran", "-copy", "none", *option, str(file)], capture_output=True
            )
            identical = again.stdout == file.read_bytes()
            counts["jpegtran_identical"] += identical
            verdict = codec.check(stream)
            counts["canonical"] += verdict.valid
            counts["dc_leaves_int16"] += not verdict.dc_fits
            counts["differs_though_dc_fits"] += verdict.dc_fits and not identical
    return counts


def judge_clips(codec: AvcCodec, streams: Sequence[bytes]) -> tuple[dict[str, int], dict[str, str]]:
    """(counts, unavailable): streams that PyAV and the program `ffmpeg` take without a word.

    Both run FFmpeg's strictest error detection, and all frames must come out.
    """
    counts = {"pyav_silent": sum(not complaints(codec, stream) for stream in streams)}
    tool = shutil.which("ffmpeg")
    if not tool:
        return counts, {"ffmpeg": "not installed (Debian: ffmpeg)"}
    counts["ffmpeg_silent"] = 0
    expected = codec.pixels * 3 // 2
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.h264"
        for stream in streams:
            file.write_bytes(codec.wrap_annex_b(stream))
            command = [tool, "-v", "warning", "-err_detect", STRICT, "-f", "h264", "-i", str(file),
                       "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]  # fmt: skip
            done = subprocess.run(command, capture_output=True)
            silent = done.returncode == 0 and not done.stderr
            counts["ffmpeg_silent"] += silent and len(done.stdout) == expected
    return counts, {}


def sampled_whole(model: Model, drawn: Sequence[np.ndarray]) -> int:
    """How many of the sampled id sequences spell exactly one complete stream and then EOS."""
    grammar = model.tokenizer.alphabet.grammar()
    spec = grammar.spec
    return sum(
        bool(
            len(ids)
            and ids[-1] == model.tokenizer.eos
            and accepts(spec, grammar.start(), model.tokenizer.decode(ids))
        )
        for ids in drawn
    )


def validity(
    model: Model, n: int, seed: int = 0, progress: Progress | None = None, **sampling: Any
) -> dict[str, Any]:
    """n pictures or clips with the grammar and n without; counts of each judge.

    sampling: `Sampling`'s, but `grammar`; by default the model's whole distribution, which is the
    hardest.
    """
    sampling = Sampling().to_dict() | sampling
    if not isinstance(model, Model):
        raise InputError("a VAE draws pixels, not streams; there is nothing that could be invalid")
    rows: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    for done, (key, grammar) in enumerate((("with_grammar", True), ("without_grammar", False))):
        if progress:
            progress(done, 2, key.replace("_", " "))
        how = sampling | {"grammar": grammar}
        pictures = model.generate(n, seed=seed, batch=32, **how)
        row: dict[str, Any] = {"complete_as_sampled": sampled_whole(model, pictures.ids)}
        if isinstance(model.codec, AvcCodec):
            judged, missing = judge_clips(model.codec, pictures.streams)
            row |= judged
            unavailable |= missing
        elif not isinstance(model.codec, JpegCodec):
            unavailable["djpeg, jpegtran"] = f"the codec {model.codec.name} writes no JPEG"
        elif not (shutil.which("djpeg") and shutil.which("jpegtran")):
            unavailable["djpeg, jpegtran"] = "not installed (Debian: libjpeg-turbo-progs)"
        else:
            row |= judge(model.codec, pictures.streams)
        rows[key] = {"streams": n, **row, "sampling": pictures.settings}
    return {**rows, "unavailable": unavailable}
