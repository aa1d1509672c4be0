"""CTranslate2 (OpenNMT)."""

import json
from collections.abc import Callable
from pathlib import Path

import ctranslate2
from ctranslate2.converters import TransformersConverter

from jpeglm.environment import cores

NAME = "CTranslate2"
PRECISIONS = ("float32", "int8")


def open(folder: Path, work: Path, precision: str) -> Callable[[int, int], None]:
    TransformersConverter(str(folder)).convert(str(work / precision), quantization=precision)
    model = ctranslate2.Generator(
        str(work / precision), compute_type=precision, intra_threads=cores()
    )
    start = json.loads((folder / "tokenizer_config.json").read_text())["bos_token"]

    def call(batch: int, tokens: int) -> None:
        model.generate_batch(
            [[start]] * batch,
            max_length=tokens,
            min_length=tokens,
            sampling_topk=40,
            sampling_topp=0.9,
            sampling_temperature=1.0,
            include_prompt_in_result=False,
        )

    return call
