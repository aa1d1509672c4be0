"""`jpeglm check` of files on a disk: pictures against settings, films against a checkpoint's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jpeglm.codecs import AvcCodec, JpegCodec
from jpeglm.codecs.base import FileCodec, Verdict
from jpeglm.codecs.check import MOST_BYTES, check_file
from jpeglm.config import InputError
from jpeglm.data.films import is_film
from jpeglm.files import read_bytes
from jpeglm.tokenizer import Tokenizer


def judge_files(
    files: Iterable[Path], settings: dict[str, Any], checkpoint: Path | None = None
) -> list[tuple[Path, Verdict]]:
    """A verdict on every file; `settings` of JPEG, and those of the checkpoint's codec, are
    demanded, the others are read from the file itself."""
    own: FileCodec | None = None
    wanted = dict(settings)
    if checkpoint is not None:
        codec = Tokenizer.load(checkpoint).codec
        if not isinstance(codec, JpegCodec | AvcCodec):
            raise InputError(f"{checkpoint} has the codec {codec.name}, which writes no files")
        own = codec
        known = {k: v for k, v in codec.to_dict().items() if k not in ("codec", "fit")}
        wanted = known | settings
    judged = []
    for file in files:
        try:
            verdict = _judge(file, wanted, own)
        except InputError as error:
            verdict = Verdict.against(error)
        except Exception as error:  # whatever a file does, the next one is judged
            verdict = Verdict(False, f"cannot be judged: {error!r}")
        judged.append((file, verdict))
    return judged


def _judge(file: Path, wanted: dict[str, Any], codec: FileCodec | None) -> Verdict:
    if codec is not None and codec.media == "clip":
        return codec.check(read_bytes(file, MOST_BYTES))
    if is_film(file):
        raise InputError("a film is checked against a checkpoint's codec; give --checkpoint")
    return check_file(read_bytes(file, MOST_BYTES), wanted)
