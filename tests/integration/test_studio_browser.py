"""The studio in a browser: Playwright drives the Chromium that is installed here.

    pip install playwright; apt-get install chromium        (JPEGLM_CHROMIUM names another one)
    npm pack axe-core                                        JPEGLM_AXE=…/axe.min.js

Without Playwright or Chromium all of it skips, without axe-core the part that asks it.
"""

import json
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jpeglm as package
from jpeglm.codecs.check import check_file
from jpeglm.inspection.trace import trace_picture

from .test_inspect import write_codes_model
from .test_serve import KEY, png, running, until, write_pixels_model

pytestmark = pytest.mark.slow

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jpeglm.serving.server", exc_type=ImportError)

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("JPEGLM_CHROMIUM") or shutil.which("chromium")
AXE = Path(os.environ.get("JPEGLM_AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
FAILED = "Failed to load resource"
"""What Chromium says of every status that is none of success, meant or not."""


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def server():
    with running(["photos", "avatars", "cifar10"]) as one:
        yield one


@pytest.fixture(scope="module")
def photo(picture_files):
    return picture_files[3]


@contextmanager
def opened(browser, server, fragment="", width=1280, wrong=(), **options):
    """A page; what it asks for and says is watched. wrong: how messages begin that are meant."""
    context = browser.new_context(viewport={"width": width, "height": 844}, **options)
    page, said, asked = context.new_page(), [], []
    page.set_default_timeout(20_000)
    page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda one: said.append(str(one)))
    page.on("request", lambda one: asked.append(one.url))
    page.goto(f"{server.url}/{fragment}")
    yield page
    context.close()
    assert all(url.startswith((server.url, "blob:" + server.url)) for url in asked), asked
    assert not [one for one in said if not one.startswith(tuple(wrong) or "\0")], said


def wait(page, script):
    """Until that is so; asked from outside, for the page's policy lets nothing be evaluated."""
    ends = time.monotonic() + 20
    while not page.evaluate(script):
        assert time.monotonic() < ends, script
        page.wait_for_timeout(20)


def shown(page, name):
    """Wait for the picture of that name to be the one that is given."""
    wait(page, f"document.querySelector('#editor .pixels').ariaLabel.endsWith(': {name}')")


def go(page, pictures=4):
    """Draw, and wait until all pictures are there; the files."""
    page.click("#go")
    wait(page, "document.querySelector('#go').textContent != 'Stop'")
    saves = page.locator("#candidates a.button")
    assert saves.count() == pictures
    files = []
    for number in range(pictures):
        with page.expect_download() as download:
            saves.nth(number).click()
        files.append(Path(download.value.path()).read_bytes())
    return files


def valid(files, tmp_path):
    """libjpeg's own tool shows all of them without a word."""
    for file in files:
        assert check_file(file, {}).valid
        (tmp_path / "x.jpg").write_bytes(file)
        if shutil.which("djpeg"):
            shown = subprocess.run(["djpeg", tmp_path / "x.jpg"], capture_output=True)
            assert shown.returncode == 0 and not shown.stderr
    return True


def seed_of(page):
    return int(page.input_value("#seed"))


def drag(page, *places):
    """The pointer from place to place in the editor, each in shares of its width and height."""
    page.locator("#editor").scroll_into_view_if_needed()
    box = page.locator("#editor").bounding_box()
    for number, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        if not number:
            page.mouse.down()
    page.mouse.up()


def ready(page):
    page.wait_for_selector("#editor[aria-valuenow]:visible")
    wait(page, "document.querySelector('#editor .pixels').ariaLabel.includes(': ')")


def test_one_click_draws(browser, server, tmp_path):
    with opened(browser, server) as page:
        ready(page)
        assert "language model" in page.inner_text("h1")
        files = go(page)
        assert valid(files, tmp_path) and len(set(files)) == 4
        assert "tokens/s" in page.inner_text("#figures") and "bits" in page.inner_text("#figures")


def test_an_uploaded_photo_is_completed_below_the_border(browser, server, photo, tmp_path):
    model = package.load("photos")
    with opened(browser, server) as page:
        ready(page)
        page.set_input_files("#file", photo)
        shown(page, photo.name)
        drag(page, (0.5, 0.5), (0.1, 0.3))
        assert page.get_attribute("#editor", "aria-valuenow") == "4"
        files = go(page)
        own = model.complete(photo, 0.25, 4, seed=seed_of(page))
        assert files == own.files and valid(files, tmp_path)
        page.check("#tint")
        assert "bits a block" in page.inner_text("#legend-most")
        (score,) = model.score_streams([own.original])
        most = page.evaluate(
            "Number(document.querySelector('#legend-most').textContent.split(' ')[0])"
        )
        assert most >= round(score.of_units.max()) - 1
        # The picture may also be dropped or pasted.
        for kind, carrier in (("drop", "dataTransfer"), ("paste", "clipboardData")):
            page.click("#sample")
            shown(page, "the example")
            page.evaluate(
                """async ([kind, carrier, bytes]) => {
                    const data = new DataTransfer();
                    data.items.add(new File([new Uint8Array(bytes)], `${kind}.jpg`));
                    const event = new Event(kind, {bubbles: true, cancelable: true});
                    event[carrier] = data;
                    document.dispatchEvent(event);
                }""",
                [kind, carrier, list(photo.read_bytes())],
            )
            shown(page, f"{kind}.jpg")


def test_words_then_keep_one_then_fill_a_hole_and_a_link(browser, server, tmp_path):
    model = package.load("avatars")
    text = "persona, red shirt, light skin, blue background"
    with opened(browser, server) as page:
        ready(page)
        page.select_option("#model", "avatars")
        page.fill("#words", text)
        files = go(page)
        first = model.generate(4, text=text, seed=seed_of(page))
        assert files == first.files and valid(files, tmp_path)
        page.click("button[aria-label^='Keep picture 2 ']")
        ready(page)
        page.check("input[value=brush]")
        page.click("#clear")
        drag(page, (0.3, 0.3), (0.7, 0.3))
        drag(page, (0.3, 0.45), (0.3, 0.45))
        files = go(page)
        hole = np.zeros((8, 8), bool)
        hole[2, 2:6] = hole[3, 2] = True
        own = model.fill_stream(
            first.streams[1], hole.reshape(-1), 4, text=text, seed=seed_of(page)
        )
        assert files == own.files and valid(files, tmp_path)
        page.uncheck("#tint")
        page.check("#tint")
        page.evaluate(
            """Object.defineProperty(navigator, "clipboard", {
                value: { writeText: async (text) => { window.copied = text; } }
            })"""
        )
        page.click("#more summary")
        page.fill("#temperature", "0.35")
        seed = seed_of(page)
        page.click("#link")
        link = page.evaluate("window.copied")
    assert link.startswith(server.url)
    with opened(browser, server, link.removeprefix(f"{server.url}/")) as page:
        ready(page)
        assert page.input_value("#words") == text and page.input_value("#temperature") == "0.35"
        assert seed_of(page) == seed and not page.is_checked("#fresh")
        assert page.is_checked("input[value=brush]") and page.is_checked("#tint")
        assert "5 of 64 blocks" in page.inner_text("#editor-hint")


def test_one_looks_inside(browser, server, photo):
    """The example, an upload, and what was drawn; what one points at is marked in all steps."""
    with opened(browser, server) as page:
        ready(page)
        page.click("#views button >> nth=1")
        page.wait_for_selector("[data-key=mcu-15]")
        assert page.inner_text("#inside-name") == "the example"
        page.set_input_files("#inside-file", photo)
        wait(page, f"document.querySelector('#inside-name').textContent == '{photo.name}'")
        told = trace_picture(package.load("photos"), photo)
        page.click("[data-key=mcu-6]")
        block = next(one for one in told["blocks"] if one["mcu"] == 6)
        levels = page.locator("[aria-label=levels] button").all_inner_texts()
        assert levels == [str(level) for level in block["levels"]]
        page.click("[data-key=levels-0]")
        own = [part for part in told["parts"] if told["blocks"][part[4]] is block and part[5] == 0]
        marked = page.locator(".look-chip.on[data-key^=part] b").all_inner_texts()
        assert marked == [part[0] for part in own]
        assert page.locator(".look-byte .on").count() and page.locator(".look-chip.chosen").count()
        dark = page.evaluate("document.querySelector('.look-frame canvas').toDataURL()")
        page.fill("#look-kept", "1")
        assert page.evaluate("document.querySelector('.look-frame canvas').toDataURL()") != dark
        page.focus("[data-key=mcu-6]")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.key") == "mcu-7"
        page.click("#views button >> nth=0")
        go(page)
        page.click("[aria-label='Look inside picture 3']")
        wait(page, "document.querySelector('#inside-name').textContent == 'picture 3'")


def test_one_looks_inside_as_it_was_drawn(browser, tmp_path):
    """With the class or words that were asked for then, whatever the form says by now."""
    with running(["cifar10"]) as server, opened(browser, server, "#class=cat&n=1&seed=3") as page:
        page.wait_for_selector("#class:visible")
        go(page, 1)
        page.select_option("#class", "ship")
        page.click("[aria-label='Look inside picture 1']")
        wait(page, "document.querySelector('#inside-name').textContent == 'picture 1'")
        assert page.input_value("#inside-class") == "cat" and not page.is_visible("#inside-words")
        drawn = package.load("cifar10").generate(label="cat", seed=3).files[0]
        cost = "'#look .look-sums tr:last-child td'"
        for label in ("cat", None):
            told = trace_picture(package.load("cifar10"), drawn, label)
            bits = f"{sum(token['bits'] for token in told['tokens']):,.0f}"
            wait(page, f"document.querySelector({cost}).textContent == '{bits}'")
            page.select_option("#inside-class", label="none given")


def test_one_looks_into_codes_and_is_told_of_what_cannot(browser, photo, tmp_path, jpeglm):
    folder = write_codes_model(tmp_path / "codes")
    models = ["cifar10", folder, write_pixels_model(tmp_path / "pixels")]
    with running(models) as server, opened(browser, server, "#model=pixels&n=1") as page:
        page.wait_for_selector("#candidates .tile")
        go(page, 1)
        assert not page.locator("[aria-label='Look inside picture 1']").count()
        page.click("#views button >> nth=1")
        assert page.inner_text("#inside-others").startswith("Not here: pixels.")
        names = page.locator("#inside-model option").all_inner_texts()
        assert names == ["cifar10", "codes"]
        page.select_option("#inside-model", "codes")
        page.wait_for_selector("[data-key=patch-31]")
        page.set_input_files("#inside-file", photo)
        wait(page, f"document.querySelector('#inside-name').textContent == '{photo.name}'")
        page.click("[data-key=patch-3]")
        told = jpeglm.told("inspect", photo, "--checkpoint", folder)
        shown = page.locator("[data-key^=code-]").all_inner_texts()
        assert shown == [f"code {code}" for code, _ in told["patches"][3]["nearest"]]


def test_a_picture_that_is_dropped_is_for_the_view_that_is_seen(browser, server, photo, tmp_path):
    """What cannot be read leaves what is shown, with its name."""
    drop = """([bytes, name]) => {
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(bytes)], name));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true }));
    }"""
    with opened(browser, server, wrong=[FAILED]) as page:
        ready(page)
        before = page.get_attribute("#editor .pixels", "aria-label")
        page.click("#views button >> nth=1")
        page.wait_for_selector("[data-key=mcu-15]")
        page.evaluate(drop, [list(photo.read_bytes()), "mine.jpg"])
        wait(page, "document.querySelector('#inside-name').textContent == 'mine.jpg'")
        page.evaluate(drop, [[1, 2, 3], "bad.jpg"])
        page.wait_for_selector("#problem:visible")
        wait(page, "document.querySelector('#inside-name').textContent == 'mine.jpg'")
        page.click("#views button >> nth=0")
        assert page.get_attribute("#editor .pixels", "aria-label") == before
        page.evaluate(drop, [list(photo.read_bytes()), "mine.jpg"])
        shown(page, "mine.jpg")


def test_restart_markers_are_explained_where_they_stand(browser, photo, tmp_path, jpeglm):
    """The default model writes one behind every MCU: the first level there is written whole."""
    assert jpeglm("inspect", photo, "--html", tmp_path / "inside.html")[0] == 0
    page = browser.new_page()
    page.goto(f"file://{tmp_path}/inside.html")
    page.click("[data-key=mcu-3]")
    assert "behind a restart marker" in page.inner_text("#look")
    assert "FF D0 to FF D7 are restart markers" in page.inner_text("#look")
    page.click(".look-plane >> nth=1")
    assert "its difference from" in page.inner_text("#look")
    page.click(".look-plane >> nth=4")
    assert "behind a restart marker" in page.inner_text("#look")
    page.click("[data-key=mcu-0]")
    assert "no block of its plane comes before" in page.inner_text("#look")
    page.close()


def test_a_page_of_inspect_works_from_a_file(browser, photo, tmp_path, jpeglm):
    assert jpeglm("inspect", photo, "--html", tmp_path / "inside.html")[0] == 0
    page, said, asked = browser.new_page(), [], []
    page.on("console", lambda one: said.append(one.text))
    page.on("pageerror", lambda one: said.append(str(one)))
    page.on("request", lambda one: asked.append(one.url))
    page.goto(f"file://{tmp_path}/inside.html")
    page.click("[data-key=mcu-3]")
    page.click("[data-key^=token] >> nth=2")
    assert page.locator(".look-chances tr").count() >= 6
    assert not said and asked == [f"file://{tmp_path}/inside.html"]
    page.close()


def watched(browser, path, width=1280):
    """A page of a file, and what it says and asks for."""
    page, said, asked = browser.new_page(viewport={"width": width, "height": 900}), [], []
    page.on("console", lambda one: said.append(one.text))
    page.on("pageerror", lambda one: said.append(str(one)))
    page.on("request", lambda one: asked.append(one.url))
    page.goto(f"file://{path}")
    return page, said, asked


@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_of_a_clip(browser, tmp_path, jpeglm, width):
    """A macroblock, its motion, a block of its levels, an element and a token, each by a click."""
    path = tmp_path / "clip.html"
    film = ROOT / "src" / "jpeglm" / "assets" / "ball.mp4"
    assert jpeglm("inspect", film, "--frame", 6, "--html", path)[0] == 0
    told = jpeglm.told("inspect", film, "--frame", 6)
    page, said, asked = watched(browser, path, width)
    own = told["macroblocks"]
    place = max(range(len(own)), key=lambda i: len(own[i]["blocks"]))
    page.click(f"[data-key=macroblock-{place}]")
    x, y = (part / 4 for part in own[place]["motion"][0]["vector"])
    line = page.locator(".look-arrow").first
    ends = [float(line.get_attribute(name)) for name in ("x1", "y1", "x2", "y2")]
    assert (ends[2] - ends[0], ends[3] - ends[1]) == pytest.approx((x, y))
    text = page.inner_text(".look-motion")
    assert f"{abs(x):g} {'right' if x > 0 else 'left'}" in text
    assert f"{abs(y):g} {'down' if y > 0 else 'up'}" in text
    blocks = own[place]["blocks"]
    number = next(i for i, block in enumerate(blocks) if any(block["levels"]))
    page.click(f"[data-key=block-{number}]")
    levels = " ".join(map(str, blocks[number]["levels"]))
    assert f"In zigzag order: {levels}" in page.inner_text("#look")
    begin, end = blocks[number]["parts"]
    marked = page.locator("[data-key^=part-].on").evaluate_all(
        "all => all.map(({ dataset }) => Number(dataset.key.slice(5)))"
    )
    assert marked == list(range(begin, end))
    bits = "".join(page.locator(".look-byte button.on").all_inner_texts())
    assert bits == "".join(part[1] for part in told["parts"][begin:end])
    page.click("[data-key^=token-] >> nth=1")
    assert page.locator(".look-chances tr").count() >= 6
    still = next(i for i, one in enumerate(own) if one["type"] == "skipped")
    page.click(f"[data-key=macroblock-{still}]")
    assert "Nothing is written for this macroblock" in page.inner_text("#look")
    page.focus("[data-key=frame-0]")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.key") == "frame-0"
    assert "Frame 0 is opened here" in page.inner_text("#look")
    assert "predicted from the samples just above it" in page.inner_text("#look")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not said and asked == [f"file://{path}"]
    if AXE.is_file():
        page.evaluate(AXE.read_text())
        assert not page.evaluate("axe.run()")["violations"]
    page.close()


def test_a_page_of_codes(browser, photo, tmp_path, jpeglm):
    path = tmp_path / "codes.html"
    words = ("inspect", photo, "--checkpoint", write_codes_model(tmp_path / "vq"))
    assert jpeglm(*words, "--html", path)[0] == 0
    told = jpeglm.told(*words)
    page, said, asked = watched(browser, path)
    page.click("[data-key=patch-3]")
    near = [code for code, _ in told["patches"][3]["nearest"]]
    shown = page.locator("[data-key^=code-]").all_inner_texts()
    assert shown == [f"code {code}" for code in near]
    page.click(f"[data-key=code-{near[2]}]")
    assert page.locator(".look-vector").count() == 3
    assert page.locator(".look-chances tr.true").count() == 2  # the nearest, and the token
    page.keyboard.press("Tab")
    page.focus("[data-key=patch-3]")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("[data-key=patch-4]", "aria-pressed") == "true"
    assert not said and asked == [f"file://{path}"]
    if AXE.is_file():
        page.evaluate(AXE.read_text())
        assert not page.evaluate("axe.run()")["violations"]
    page.close()


def test_a_class(browser, server, tmp_path):
    with opened(browser, server, "#model=cifar10&n=2&seed=5&class=ship&guidance=1.5") as page:
        page.wait_for_selector("#class:visible")
        files = go(page, 2)
        model = package.load("cifar10")
        assert files == model.generate(2, label="ship", guidance=1.5, seed=5).files


def test_by_keyboard_alone(browser, server):
    with opened(browser, server) as page:
        ready(page)

        def tab_to(selector):
            for _ in range(40):
                page.keyboard.press("Tab")
                if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                    return
            raise AssertionError(f"{selector} is not reached")

        tab_to("#editor")
        for key, border in (
            ("ArrowUp", 4),
            ("ArrowRight", 5),
            ("End", 16),
            ("Home", 0),
            ("ArrowDown", 4),
        ):
            page.keyboard.press(key)
            assert page.get_attribute("#editor", "aria-valuenow") == str(border)
        tab_to("#go")
        page.keyboard.press("Enter")
        page.wait_for_selector("#candidates a.button >> nth=3")
        tab_to("#tint")
        page.keyboard.press("Space")
        assert page.is_visible("#legend")
        tab_to("button[aria-label^='Keep picture 1 ']")
        page.keyboard.press("Enter")
        wait(page, "document.activeElement.id == 'editor'")
        page.select_option("#model", "avatars")
        page.check("input[value=picture]")
        ready(page)
        page.check("input[value=brush]")
        page.locator("input[value=brush]").focus()
        tab_to("#editor")
        page.click("#clear")
        page.click("#go")
        page.wait_for_selector("#problem:visible")
        assert "Nothing is painted" in page.inner_text("#problem")
        page.focus("#editor")
        for key in ("Home", "Space", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        assert "2 of 64 blocks" in page.inner_text("#editor-hint")


def test_it_says_what_is_wrong(browser, photo, tmp_path):
    with (
        running(["cifar10"], rows=2, queue=2, max_n=4) as server,
        opened(browser, server, wrong=[FAILED]) as page,
    ):
        page.wait_for_selector("#go")

        def told(*words):
            page.wait_for_selector("#problem:visible")
            for word in words:
                assert word in page.inner_text("#problem")

        bad = tmp_path / "picture.jpg"
        bad.write_bytes(b"none")
        page.set_input_files("#file", bad)
        told("is not a readable picture")
        assert page.is_checked("input[value=nothing]"), "everything is as it was"
        batcher = server.batcher("cifar10")
        ticket = batcher.ask(4, lambda event: None)
        page.click("#go")
        wait(page, "document.querySelector('#problem').textContent.includes('again')")
        told("Too many pictures are waiting; ask again in")
        ticket.close()
        assert len(go(page)) == 4 and not page.is_visible("#problem")
        page.click("#more summary")
        page.fill("#n", "9")
        page.click("#go")
        told("N is 9; it must be from 1 to 4.")
        page.fill("#n", "1")
        server.service.stop()
        until(lambda: not server.thread.is_alive())
        page.click("#go")
        wait(page, "document.querySelector('#problem').textContent.includes('answer')")
        told("The server does not answer.")


def test_it_asks_for_a_key(browser):
    with (
        running(["cifar10"], api_key=KEY) as server,
        opened(browser, server, wrong=[FAILED]) as page,
    ):
        page.wait_for_selector("#key-text")
        page.fill("#key-text", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#problem:visible")
        page.fill("#key-text", KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("#go")
        assert len(go(page)) == 4 and not page.is_visible("#key")


def test_a_stopped_drawing_frees_its_rows(browser, server):
    with opened(browser, server, "#model=avatars&n=10") as page:
        page.wait_for_selector("#words:visible")
        page.click("#go")
        until(lambda: server.batcher("avatars").open > 0)
        page.click("#go")
        until(lambda: server.batcher("avatars").open == 0)
        wait(page, "document.querySelector('#go').textContent != 'Stop'")
        assert not page.is_visible("#problem")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, server, width, theme):
    """Nor is anything wider than the page."""
    if not AXE.is_file():
        pytest.skip("there is no axe-core; JPEGLM_AXE names its axe.min.js")

    def judged(page):
        page.wait_for_timeout(200)  # transitions of colours
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run()")["violations"]
        assert not [
            (one["id"], one["nodes"][0]["html"])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    options = {"color_scheme": theme, "reduced_motion": "reduce", "bypass_csp": True}
    with opened(browser, server, "", width, **options) as page:
        ready(page)
        judged(page)
        go(page)
        page.check("#tint")
        page.click("#more summary")
        judged(page)
        page.click("[aria-label='Look inside picture 1']")
        page.wait_for_selector("[data-key=mcu-15]")
        judged(page)
        page.click("#views button >> nth=0")
        page.select_option("#model", "avatars")
        judged(page)
        page.check("input[value=picture]")
        ready(page)
        page.check("input[value=brush]")
        judged(page)
        page.set_input_files(
            "#file", {"name": "x.png", "mimeType": "image/png", "buffer": png_of_nothing()}
        )
        ready(page)
        judged(page)


def png_of_nothing():
    return png(Image.new("RGB", (80, 64), (90, 120, 30)))
