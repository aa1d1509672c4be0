"""onnxruntime-genai: its builder takes a checkpoint as it lies, the grammar masks its logits."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jpeglm

genai = pytest.importorskip("onnxruntime_genai")
pytest.importorskip("onnx_ir")

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "integrations.md").read_text().partition("## ONNX")[2].partition("\n## ")[0]


def test_the_lines_of_the_page(tmp_path, monkeypatch):
    """Built and drawn as docs/integrations.md prints it; and its logits beside ours."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "src" / "jpeglm" / "assets" / "photos", "runs/photos/model")
    (line,) = re.findall(r"^    python (.*)$", PAGE, re.MULTILINE)
    subprocess.run(
        [sys.executable, *shlex.split(line), "-c", "cache"], check=True, capture_output=True
    )
    (code,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {}
    exec(code, names)
    tokenizer = names["tokenizer"]
    assert tokenizer.codec.check(names["file"]).valid and names["matcher"].ended
    ours = jpeglm.load("photos", precision="float32")
    prompt = np.array([tokenizer.bos, *names["matcher"].ids[:40]])
    generator = genai.Generator(names["model"], genai.GeneratorParams(names["model"]))
    generator.append_tokens(prompt[None].astype(np.int32))
    theirs = np.asarray(generator.get_logits()).reshape(-1)
    np.testing.assert_allclose(theirs, ours.engine.add([prompt])[0], atol=1e-4)
