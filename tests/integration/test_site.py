"""The documentation site: built strictly, loads nothing from elsewhere, no link leads nowhere."""

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import jpeglm

pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")
pytest.importorskip("nbconvert")

ROOT = Path(__file__).parents[2]
LOADED = {
    "img": ("src", "srcset"), "script": ("src",), "iframe": ("src", "srcdoc"), "embed": ("src",),
    "object": ("data",), "source": ("src", "srcset"), "video": ("src", "poster"),
    "audio": ("src",), "track": ("src",), "input": ("src",), "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"), "body": ("background",),
}  # fmt: skip
"""What a browser fetches without being asked; of `link` by its `rel`."""
RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect",
             "dns-prefetch", "manifest", "apple-touch-icon"}  # fmt: skip
IN_STYLES = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


class Content(HTMLParser):
    """What a page loads, where it leads, and the places in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = {""}
        self._style = False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        names = LOADED.get(tag, ())
        if tag == "link" and RELATIONS & set(values.get("rel", "").split()):
            names = ("href",)
        for name in names:
            if values.get(name):
                parts = values[name].split(",") if name == "srcset" else [values[name]]
                self.loads += [part.split()[0] for part in parts]
        self.loads += in_styles(values.get("style", ""))
        self._style = tag == "style"

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        if self._style:
            self.loads += in_styles(data)


def in_styles(text: str) -> list[str]:
    return [first or second for first, second in IN_STYLES.findall(text)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    found = {page: Content(page) for page in sorted(site.rglob("*.html"))}
    assert len(found) > 25
    return found


def target_of(site: Path, page: Path, address: str) -> Path:
    """Where an address leads, seen from a page: of the site if it is one's own."""
    path = unquote(address.split("?")[0])
    inside = path.startswith("/") and not path.startswith("//")
    place = (site / path.lstrip("/") if inside else page.parent / path).resolve()
    return place / "index.html" if place.is_dir() else place


def missing(site: Path, page: Path, address: str) -> bool:
    """Whether an address is no file of the site."""
    place = target_of(site, page, address)
    return site not in place.parents or not place.is_file()


def test_no_page_loads_from_elsewhere(site, pages):
    """Nor do style sheets; what is loaded is there. `data:` is in the page itself."""
    loads = [(page, one) for page, content in pages.items() for one in content.loads]
    for sheet in site.rglob("*.css"):
        loads += [(sheet, one) for one in in_styles(sheet.read_text(encoding="utf-8"))]
    loads = [(page, one) for page, one in loads if not one.startswith(("data:", "#"))]
    assert len(loads) > 100
    wrong = {(page.name, one) for page, one in loads if missing(site, page, one)}
    assert not wrong


def test_what_would_load_from_elsewhere_is_found(tmp_path):
    page = tmp_path / "index.html"
    page.write_text(
        '<link rel="preconnect" href="//a.example"><img srcset="b.png 1x, https://c.example/d 2x">'
        "<style>@import 'https://e.example'; p { background: url(//f.example/g) }</style>"
        '<a href="https://h.example">leads there, loads nothing</a><p style="cursor: url(i.png)">'
    )
    found = Content(page)
    assert found.loads == [
        "//a.example", "b.png", "https://c.example/d", "https://e.example", "//f.example/g", "i.png"
    ]  # fmt: skip
    assert all(missing(tmp_path, page, one) for one in found.loads)
    assert found.links == ["https://h.example"]


def test_every_link_and_anchor_leads_somewhere(site, pages):
    counted = 0
    for page, content in pages.items():
        for link in content.links:
            if re.match(r"[a-z]+:", link):
                assert "//" not in link or link.startswith("https://"), (page.name, link)
                continue
            address, place = urldefrag(link)
            target = target_of(site, page, address) if address else page
            assert not missing(site, page, target.as_posix()[len(site.as_posix()) :]), (page, link)
            if place and target.suffix == ".html":
                assert unquote(place) in pages[target].places, f"{page.name} leads to {link}"
            counted += 1
    assert counted > 1000


@pytest.mark.parametrize("name", jpeglm.__all__)
def test_a_public_name_has_its_place(site, pages, name):
    """With its docstring: the first words of it stand behind the heading."""
    page = site / "reference.html"
    assert f"jpeglm.{name}" in pages[page].places
    text = page.read_text(encoding="utf-8").split(f'id="jpeglm.{name}"')[1].split("<h3 ")[0]
    words = " ".join(unescape(re.sub("<[^>]*>", " ", text)).split())
    said = (getattr(jpeglm, name).__doc__ or "").replace("`", " ").split()
    assert " ".join(said[:4]) in words and len(said) > 4


def test_the_notebook_and_the_results_are_there(site, pages):
    tour = (site / "tour.html").read_text(encoding="utf-8")
    assert tour.count("what the cell draws") == len(list((site / "tour").glob("*.png"))) == 3
    assert "parameters" in tour and "docs/road.md" in tour
    results = {path.name for path in (ROOT / "docs" / "results").glob("*.json")}
    listed = {Path(link).name for link in pages[site / "measurements.html"].links}
    assert results and results <= listed


def test_every_figure_is_shown(site, pages):
    """Of docs/figures; a script that makes one for no page is forgotten."""
    shown = {Path(one).name for content in pages.values() for one in content.loads}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    figures = {path.name for path in (ROOT / "docs" / "figures").iterdir()}
    log = (ROOT / "docs" / "log.md").read_text(encoding="utf-8")
    assert not {name for name in figures - shown if name not in readme and name not in log}
