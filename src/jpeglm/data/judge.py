"""`jpeglm check` of files on a disk: pictures against settings, films against a checkpoint's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jpeglm.checkpoint import checkpoint_folder
from jpeglm.codecs import AvcCodec
from jpeglm.codecs.check import MOST_BYTES, Verdict, check_clip, check_file
from jpeglm.config import InputError
from jpeglm.data.films import is_film
from jpeglm.files import read_bytes
from jpeglm.tokenizer import Tokenizer


def judge_files(
    files: Iterable[Path], settings: dict[str, Any], checkpoint: Path | None = None
) -> dict[str, Any]:
    """A verdict on every file; `settings` of JPEG, and those of the checkpoint's codec, are
    demanded, the others are read from the file itself."""
    codec: Any = None
    wanted = dict(settings)
    if checkpoint is not None:
        codec = Tokenizer.load(checkpoint_folder(checkpoint)).codec
        if codec.name not in ("jpeg", "avc"):
            raise InputError(f"{checkpoint} has the codec {codec.name}, which writes no files")
        own = {k: v for k, v in codec.to_dict().items() if k not in ("codec", "fit")}
        wanted = own | settings
    results: list[dict[str, Any]] = []
    for file in files:
        try:
            verdict = _judge(file, wanted, codec)
        except InputError as error:
            verdict = Verdict(False, str(error))
        except Exception as error:  # whatever a file does, the next one is judged
            verdict = Verdict(False, f"cannot be judged: {error!r}")
        results.append(
            {
                "file": str(file),
                "valid": verdict.valid,
                "reason": verdict.reason,
                "dc_fits": verdict.dc_fits,
                "codec": verdict.codec,
            }
        )
    return {
        "files": results,
        "failed": sum(not result["valid"] for result in results),
        "dc_leaves_int16": sum(result["valid"] and not result["dc_fits"] for result in results),
    }


def _judge(file: Path, wanted: dict[str, Any], codec: Any) -> Verdict:
    if isinstance(codec, AvcCodec):
        return check_clip(read_bytes(file, MOST_BYTES), codec)
    if is_film(file):
        raise InputError("a film is checked against a checkpoint's codec; give --checkpoint")
    return check_file(read_bytes(file, MOST_BYTES), wanted)
