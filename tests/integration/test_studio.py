"""The studio: its files as the server gives them."""

import re
import subprocess
import threading
from urllib.parse import quote

import pytest

from jpeglm.cli import serving as verbs

from .test_serve import KEY, running

httpx = pytest.importorskip("httpx")
page = pytest.importorskip("jpeglm.serving.page", exc_type=ImportError)
serving = pytest.importorskip("jpeglm.serving.server", exc_type=ImportError)

LONGEST = 400
"""Lines of a module, as of ours in Python."""


@pytest.fixture(scope="module")
def server(jpeglm):
    with running(["cifar10"], api_key=KEY) as one:
        yield one


def test_files_come_without_a_key_and_under_a_strict_policy(server):
    """Also what names them is found: every file that a file asks for."""
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    asked = set()
    for path, file in page.FILES.items():
        answer = httpx.get(server.url + path)
        assert answer.status_code == 200 and answer.content == file.read_bytes()
        assert answer.headers["content-security-policy"] == page.POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].startswith(kinds.get(file.suffix, "image/"))
        again = httpx.get(server.url + path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert httpx.head(server.url + path).headers["etag"] == answer.headers["etag"]
        if file.suffix in kinds:
            text = file.read_text()
            assert (
                "http://" not in text.replace("http://www.w3.org/", "") and "https://" not in text
            )
            folder = path.rpartition("/")[0] or "/studio"
            asked |= {f"{folder}/{word}" for word in _names(text, 'from "./')}
            asked |= {f"/studio/{word}" for word in _names(text, '"/studio/')}
    assert asked and asked <= set(page.FILES)
    assert httpx.get(f"{server.url}/v1/models").status_code == 401
    assert "unsafe" not in page.POLICY and "default-src 'none'" in page.POLICY


def _names(text, mark):
    """Files that a text names behind a mark."""
    return [part.split('"')[0] for part in text.split(mark)[1:]]


def test_no_path_leads_out_of_the_folder(server):
    names = ("../app.py", "..%2fapp.py", "%2e%2e/app.py", "....//app.py", "/etc/passwd", "%00", "",
             "index.html", "STUDIO.css", "main.js/", quote("../../places.py", safe=""))  # fmt: skip
    host, port = server.url[7:].split(":")
    for name in names:
        asked = subprocess.run(
            ["curl", "-s", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}",
             f"http://{host}:{port}/studio/{name}", "-H", f"Authorization: Bearer {KEY}"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert asked.stdout in ("404", "307"), name
    assert httpx.post(server.url, headers={"Authorization": f"Bearer {KEY}"}).status_code == 405


def test_files_are_short_and_hold_no_script_or_style_inside():
    text = (page.FOLDER / "index.html").read_text()
    assert " style=" not in text and "<style" not in text and not re.search(r"\son\w+=", text)
    assert text.count("<script") == 1 and '<script type="module" src=' in text
    for file in (*page.FOLDER.iterdir(), *page.INSIDE.iterdir()):
        assert len(file.read_text().splitlines()) <= LONGEST, file.name


@pytest.mark.parametrize("opens", [True, False])
def test_the_verb_serves_and_opens_the_page(jpeglm, monkeypatch, opens):
    """Once there is somebody to answer; where no browser is found, it says where the page is."""
    opened, ended = [], threading.Event()

    def browser(url):
        opened.append((url, httpx.get(url).status_code))
        ended.set()
        return False

    run = serving.Server.run

    def run_a_while(self, sockets):
        thread = threading.Thread(target=run, args=(self, sockets))
        thread.start()
        assert not opens or ended.wait(30)
        self.service.stop()
        thread.join(30)

    monkeypatch.setattr(verbs.webbrowser, "open", browser)
    monkeypatch.setattr(serving.Server, "run", run_a_while)
    words = [] if opens else ["--no-open"]
    code, out, err = jpeglm("studio", "--port", 0, "--checkpoint", "cifar10", *words)
    assert code == 0 and "the studio at http://127.0.0.1:" in out
    assert len(opened) == opens and all(status == 200 for _, status in opened)
    assert ("no browser is found here; open http" in err) == opens
