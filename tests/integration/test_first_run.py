"""The first run on a machine tells what it compiles and how far it is; a later one shows nothing.

numba optimises nothing here, which halves the time and changes neither functions nor their number.
"""

import os
import re
import subprocess
import sys

import pytest

import jpeglm
from jpeglm.compiling import WHY, watched
from jpeglm.environment import cores
from jpeglm.generation.loading import FUNCTIONS
from jpeglm.serving import warming

GENERATE = [sys.executable, "-m", "jpeglm", "generate", "-n", "1"]


def on_a_terminal(words, **environment):
    """What a command writes to a stderr that is a terminal."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "160"} | environment
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not part:
                break
            shown += part
        process.communicate()
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def test_a_first_run_counts_what_it_compiles_up_to_the_last_function(tmp_path):
    fresh = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_OPT": "0"}
    fresh["PYTHONWARNINGS"] = "ignore"
    shown = on_a_terminal([*GENERATE, "--out", str(tmp_path / "out")], **fresh)
    most = FUNCTIONS["picture"]
    assert WHY.format(most, "40 s to 3 minutes") in shown
    counts = [(int(done), int(total)) for done, total in re.findall(r"(\d+)/(\d+)", shown)]
    compiled = [done for done, total in counts if total == most]
    assert compiled[0] < 5 and compiled == sorted(compiled), compiled
    assert len({*compiled}) > most / 4  # it moves
    # One core needs none of what shares a sequence among several.
    assert max(compiled) == most or (cores() == 1 and max(compiled) > 0.9 * most)
    assert {total for _, total in counts} <= {most, 1}


def test_a_later_run_shows_nothing(tmp_path):
    jpeglm.load()  # from now on they lie in the cache
    told = []
    with watched(told.append):
        jpeglm.generate(1)
        jpeglm.complete("src/jpeglm/assets/astronaut.jpg")
    assert told == []
    done = subprocess.run([*GENERATE, "--out", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


REQUESTS = """
import io
from pathlib import Path
from PIL import Image
from starlette.testclient import TestClient
from jpeglm.compiling import watched
from jpeglm.serving.app import make_app
from jpeglm.serving.service import Service
from jpeglm.serving.settings import ServeConfig

service, told = Service(ServeConfig(), ["avatars"]), []
with watched(told.append), TestClient(make_app(service), base_url="http://127.0.0.1") as client:
    photo, mask = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64), (200, 90, 20)).save(photo, "PNG")
    hole = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    hole.paste((0, 0, 0, 0), (0, 0, 16, 16))
    hole.save(mask, "PNG")
    image, both = {"image": photo.getvalue()}, {"image": photo.getvalue(), "mask": mask.getvalue()}
    for path, files in (("edits", both), ("edits", image), ("scores", image), ("scores", both),
                        ("traces", image)):
        assert client.post(f"/v1/images/{path}", files=files).status_code == 200, path
    told_ = {"prompt": "a man", "n": 2, "guidance": 2.0, "top_k": 9, "top_p": 0.9}
    assert client.post("/v1/images/generations", json=told_).status_code == 200
service.close()
print("compiled", told)
"""


@pytest.mark.slow
def test_no_request_pays_for_what_a_server_could_have_compiled_before(tmp_path):
    """None stands still, of any kind, on a machine where nothing lies in the cache."""
    pytest.importorskip("httpx")
    pytest.importorskip("jpeglm.serving.server", exc_type=ImportError)
    fresh = {
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "NUMBA_OPT": "0",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-c", REQUESTS], capture_output=True, text=True, env=os.environ | fresh
    )
    assert done.stdout == "compiled []\n", done.stderr
    most = [int(most) for most in re.findall(r"compiling up to (\d+)", done.stderr)]
    assert most == [FUNCTIONS["picture"], warming.FUNCTIONS]
