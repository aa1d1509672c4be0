"""`hf:ORG/NAME` through the real huggingface_hub client, against a hub of two routes on this
machine."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("huggingface_hub")

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """What the client asks of the hub: a model's files, and each of them."""

    files: dict
    asked: list

    def do_GET(self):
        self.asked.append(self.path)
        if self.path.startswith("/api/models/org/name"):
            names = [{"rfilename": name, "path": name} for name in self.files]
            known = {"id": "org/name", "sha": COMMIT, "siblings": names, "private": False}
            rows = [
                {"type": "file", "path": n, "size": len(c), "oid": "0" * 40}
                for n, c in self.files.items()
            ]
            return self.answer(json.dumps(rows if "/tree/" in self.path else known).encode())
        name = self.path.partition("?")[0].rpartition("/")[2]
        if "/resolve/" in self.path and "/org/name/" in self.path and name in self.files:
            return self.answer(self.files[name], name)
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def answer(self, content, name=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if name:
            self.send_header("ETag", f'"{hash(name) & 0xFFFFFF:x}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


SCRIPT = """
import sys
from jpeglm.config import InputError
from jpeglm.integrations.hub import source_folder
try:
    print(source_folder(sys.argv[1]))
except InputError as error:
    print("refused:", error)
"""


@pytest.fixture
def ask(tmp_path):
    """ask(source, endpoint) in a process whose client knows this endpoint and an empty cache."""

    def run(source, endpoint, **more):
        variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), **more}
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, source], capture_output=True, text=True, check=True,
            env={**os.environ, **variables}, timeout=120,
        )  # fmt: skip
        return ended.stdout.strip()

    return run


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Hub,), {"files": {}, "asked": []}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.RequestHandlerClass, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_is_read_is_fetched_and_kept(hub, ask):
    handler, endpoint = hub
    handler.files |= {
        "config.json": b"{}", "tokenizer.model": b"pieces", "model.safetensors": b"weights",
        "pytorch_model.bin": b"the same weights", "training.log": b"much",
    }  # fmt: skip
    folder = ask("hf:org/name", endpoint)
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors", "tokenizer.model"]
    with open(os.path.join(folder, "tokenizer.model"), "rb") as file:
        assert file.read() == b"pieces"
    # Out of reach, what lies here is taken.
    assert ask("hf:org/name", "http://127.0.0.1:9") == folder
    assert ask("hf:org/name", endpoint, HF_HUB_OFFLINE="1") == folder


def test_pickles_are_fetched_where_there_is_nothing_else(hub, ask):
    handler, endpoint = hub
    handler.files |= {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    folder = ask("hf:org/name", endpoint)
    assert sorted(os.listdir(folder)) == ["config.json", "pytorch_model.bin"]
    assert ask("hf:org/name", "http://127.0.0.1:9") == folder


def test_what_cannot_be_fetched_is_told_in_a_sentence(hub, ask):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    for said in (ask("hf:org/name", nobody), ask("hf:org/name", nobody, HF_HUB_OFFLINE="1")):
        assert said.startswith("refused: hf:org/name cannot be fetched: the hub cannot be reached")
        assert said.count("\n") == 0
    missing = ask("hf:org/other", hub[1])
    assert missing.startswith("refused: hf:org/other cannot be fetched") and "\n" not in missing
