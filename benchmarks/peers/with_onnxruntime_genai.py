"""ONNX Runtime GenAI, the model made by its own builder."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai

NAME = "onnxruntime-genai"
PRECISIONS = ("float32",)


def open(folder: Path, work: Path, precision: str) -> Callable[[int, int], None]:
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", folder]
    builder += ["-o", work / "model", "-p", "fp32", "-e", "cpu", "-c", work / "cache"]
    subprocess.run(builder, check=True, capture_output=True)
    model = genai.Model(str(work / "model"))
    bos = json.loads((folder / "generation_config.json").read_text())["bos_token_id"]

    def call(batch: int, tokens: int) -> None:
        settings = genai.GeneratorParams(model)
        settings.set_search_options(
            do_sample=True,
            top_k=40,
            top_p=0.9,
            temperature=1.0,
            min_length=tokens + 1,
            max_length=tokens + 1,
            batch_size=batch,
        )
        generator = genai.Generator(model, settings)
        generator.append_tokens(np.full((batch, 1), bos, np.int32))
        while not generator.is_done():
            generator.generate_next_token()

    return call
