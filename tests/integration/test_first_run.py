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
from jpeglm.generation.loading import FUNCTIONS

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
    assert WHY.format(most) in shown
    counts = [(int(done), int(total)) for done, total in re.findall(r"(\d+)/(\d+)", shown)]
    compiled = [done for done, total in counts if total == most]
    assert compiled[0] < 5 and compiled == sorted(compiled), compiled
    assert len({*compiled}) > most / 4  # it moves
    assert max(compiled) == most and {total for _, total in counts} <= {most, 1}


def test_a_later_run_shows_nothing(tmp_path):
    jpeglm.load()  # from now on they lie in the cache
    told = []
    with watched(told.append):
        jpeglm.generate(1)
        jpeglm.complete("src/jpeglm/assets/astronaut.jpg")
    assert told == []
    done = subprocess.run([*GENERATE, "--out", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
