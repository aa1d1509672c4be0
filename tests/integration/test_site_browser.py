"""The documentation site in Chromium, which needs what `test_studio_browser` needs.

Every page asks this server alone and is as wide as the window; axe-core finds nothing serious in a
page of each kind; search finds, over HTTP and from a folder.
"""

import functools
import http.server
import threading

import pytest

from .test_site import site  # noqa: F401
from .test_studio_browser import AXE, browser  # noqa: F401

pytestmark = pytest.mark.slow

SERIOUS = ("serious", "critical")
KINDS = (
    "index", "how-it-works", "comparison", "reference", "specification", "results", "tour",
    "photos", "comparison-photos",
)  # fmt: skip
"""Pages of which axe-core is asked, by the name of their file: wide and light, narrow and dark."""
RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):  # noqa: F811
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def watched(context):
    """(page, what it asked for, what it complained of)."""
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda one: asked.append(one.url))
    page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda one: said.append(str(one)))
    return page, asked, said


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_sound(browser, site, address, scheme, width):  # noqa: F811
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
    )
    page, asked, said = watched(context)
    found = {}
    for file in sorted(site.rglob("*.html")):
        if file.name == "404.html":
            continue
        page.goto(address + file.relative_to(site).as_posix())
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0, (file.name, wider)
        if AXE.exists() and file.stem in KINDS and (width > 1000) == (scheme == "light"):
            page.evaluate(AXE.read_text())
            problems = page.evaluate(f"axe.run({RULES}).then((one) => one.violations)")
            serious = [one["id"] for one in problems if one["impact"] in SERIOUS]
            found |= {file.name: serious} if serious else {}
    context.close()
    assert not found and not said
    assert len(asked) > 100 and all(url.startswith((address, "data:")) for url in asked)


@pytest.mark.parametrize("folder", [False, True], ids=["http", "folder"])
def test_search_finds(browser, site, address, folder):  # noqa: F811
    context = browser.new_context()
    page, asked, said = watched(context)
    begin = f"{site.as_uri()}/" if folder else address
    page.goto(begin + "index.html")
    page.fill("input.md-search__input", "restart marker")
    page.wait_for_selector(".md-search-result__item", timeout=20_000)
    titles = page.locator(".md-search-result__item").all_inner_texts()
    page.locator(".md-search-result__link").first.click()
    page.wait_for_load_state()
    place = page.url
    context.close()
    assert len(titles) > 3 and any("Specification" in title for title in titles)
    assert place.startswith(begin) and "index.html" not in place and not said
    assert all(url.startswith((begin, "data:")) for url in asked)


def test_a_wide_table_is_reached_by_keyboard(browser, site, address):  # noqa: F811
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page, _, _ = watched(context)
    page.goto(address + "benchmarks.html")
    page.wait_for_selector(".md-typeset__scrollwrap[tabindex='0']")
    counts = page.evaluate(
        "[...document.querySelectorAll('.md-typeset__scrollwrap')]"
        ".map((box) => [box.scrollWidth > box.clientWidth, box.tabIndex === 0])"
    )
    context.close()
    assert counts and all(wide == reached for wide, reached in counts)
