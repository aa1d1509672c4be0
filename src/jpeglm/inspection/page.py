"""A trace as one HTML file that works without a network."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from jpeglm.config import InputError
from jpeglm.files import printable, read_bytes
from jpeglm.folders import check_writable

SCRIPTS = ("dom.js", "jpeg.js", "model.js", "steps.js", "look.js", "clip.js", "codes.js")
"""Modules, each after those that it imports."""
STYLES = ("base.css", "look.css")
KINDS = {
    "jpeg": ("look", "a JPEG", "a picture"),
    "clip": ("lookClip", "a clip", "a clip"),
    "codes": ("lookCodes", "a VQ-VAE", "a picture of codes"),
}
"""Of a trace's kind: the function that shows it, and what the page is said to be about."""

BY = "jpeglm inspect"
"""What made a page."""

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}: inside {inside}</title>
<meta name="generator" content="{by}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
{styles}
</style>
<main>
<h1>What a language model reads in {about}</h1>
<div class="look" id="look"></div>
<noscript><p>This page needs JavaScript.</p></noscript>
</main>
<script type="application/json" id="trace">{trace}</script>
<script>
(() => {{
"use strict";
{scripts}
{look}(document.getElementById("look"), JSON.parse(document.getElementById("trace").textContent));
}})();
</script>
</html>
"""


def asset(name: str) -> str:
    """The text of one of the page's files."""
    return (files("jpeglm.inspection") / "page" / name).read_text("utf-8")


def page(trace: dict[str, Any], title: str) -> str:
    """`trace` (inspection.trace) with everything that shows it."""
    told = json.dumps(trace, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    look, inside, about = KINDS[trace["kind"]]
    return PAGE.format(
        look=look,
        inside=inside,
        about=about,
        title=escape(title),
        by=BY,
        styles="\n".join(asset(name) for name in STYLES),
        scripts="\n".join(_bare(asset(name)) for name in SCRIPTS),
        trace=told,
    )


def check_place(path: Path) -> None:
    """InputError unless a page can be written at `path`: where nothing is, or another page."""
    if path.is_dir():
        raise InputError(f"{printable(path)} is a folder; --html names a file, as inside.html")
    if path.exists() and f'content="{BY}"'.encode() not in read_bytes(path)[:1000]:
        raise InputError(
            f"{printable(path)} exists and is no page of jpeglm inspect; choose another name"
        )
    check_writable(path.parent)


def _bare(script: str) -> str:
    """A module's text without its imports and exports: all stand in one scope here."""
    script = re.sub(r"^import .*\n", "", script, flags=re.MULTILINE)
    return re.sub(r"^export ", "", script, flags=re.MULTILINE)
