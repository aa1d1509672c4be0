"""What a run folder says of itself: README.md, curves.png, samples.jpg, report.html.

    README.md       a run's own text, with its curves and its samples
    curves.png      loss, and what is measured on held-out pictures, over steps
    samples.jpg     some of the sheets in samples/, the first and the last among them
    report.html     README.md and those two as one file, for a mail or a browser

All are written anew after every evaluation from what lies in the folder, so that they hold for one
that was copied, killed or begun by an older version. A README.md or report.html without our mark is
somebody's notes and stays. No page ends a training: what cannot be written, or read for it, is a
warning. What users name is told as it is: Markdown reads none of it as its own.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from jpeglm.config import InputError, install
from jpeglm.files import atomic_write, printable, told
from jpeglm.folders import shell

Warn = Callable[[str, str], None]
"""Called with what a warning is about, and its sentence."""
MARK = "<!-- Written by jpeglm train at every evaluation; your notes are safe in another file. -->"
FILES = {
    "README.md, report.html": "this page, written anew at every evaluation",
    "curves.png, samples.jpg": "its pictures",
}
"""The first rows of a run's table of files."""
STATES = {
    None: "It was training when this page was written; if it no longer is, its command resumes "
    "from the last checkpoint.",
    True: "It was stopped; its command resumes from there.",
    False: "It is finished. With a larger budget the same command trains on, the learning rate "
    "rising again to where that budget has it.",
}
"""By whether a run was stopped; None while it goes on."""
PICTURES = {
    "curves.png": "loss and held-out measures over steps",
    "samples.jpg": "samples over steps",
}
SHEETS, WIDTH, LINE = 6, 960, 22
"""Sheets that samples.jpg shows; pixels of its width, and of the line above each."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff; overflow-wrap: break-word; }
img { max-width: 100%; height: auto; background: #fff; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left;
  border-bottom: 1px solid #8884; vertical-align: top; }
pre, code { font-family: ui-monospace, monospace; font-size: .9em; }
pre { padding: .8rem; overflow-x: auto; background: #8882; border-radius: .3rem; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #161616; } }
"""


def write_pages(
    out: Path,
    plot: Callable[[], bytes] | None,
    text: Callable[[], str],
    warn: Warn,
) -> None:
    """All four files. plot: PNG of the curves, None where there are none yet; text: README.md, made
    when its pictures lie there."""
    if plot:
        with _warned(warn, "curves.png"):
            atomic_write(out / "curves.png", plot())
    with _warned(warn, "samples.jpg"):
        if jpeg := over_time(out / "samples", warn):
            atomic_write(out / "samples.jpg", jpeg)
    page = text()
    _page(out / "README.md", lambda: page, warn)
    _page(out / "report.html", lambda: html(out, page), warn)


def _page(file: Path, made: Callable[[], str], warn: Warn) -> None:
    """Write it, unless somebody's own lies there."""
    with _warned(warn, file.name):
        if file.exists() and MARK.encode() not in file.read_bytes()[: 2 * len(MARK)]:
            warn(
                file.name,
                f"{printable(file)} is not ours and stays as it is; rename it to have the run "
                "described",
            )
        else:
            atomic_write(file, made().encode())


@contextmanager
def _warned(warn: Warn, name: str) -> Iterator[None]:
    """Say why a page is not written, and go on."""
    try:
        yield
    except ModuleNotFoundError as error:
        warn(name, f"no {name} is written: {error.name} is missing; {install('train')}")
    except (InputError, OSError, ValueError) as error:
        warn(name, f"no {name} is written: {told(error)}")


def code(text: object) -> str:
    """Any text as a code span of Markdown."""
    shown = printable(str(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    blank = " " * (len(fence) > 1 or shown != shown.strip())
    return f"{fence}{blank}{shown}{blank}{fence}"


def plain(text: object) -> str:
    """Any text as text of Markdown, in one line: nothing in it is markup, not even in a table."""
    return re.sub(r"[\\`*\[\]<>&|~#!]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", printable(str(text)))


def picture(out: Path, name: str) -> list[str]:
    """The line of README.md that shows one of `PICTURES`, where it lies in `out`."""
    return [f"![{PICTURES[name]}]({name})"] if (out / name).is_file() else []


def files_table(files: Mapping[str, str]) -> str:
    """The table of what lies in a run folder."""
    rows = [f"| `{name}` | {what} |" for name, what in {**FILES, **files}.items()]
    return "## Files\n\n| | |\n|---|---|\n" + "\n".join(rows)


def command_line(words: list[str], values: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """The words of a command and every option whose value is not the usual one."""
    line = list(words)
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if value == usual.get(name, value):
            continue
        if isinstance(value, bool):
            line.append(option if value else f"--no-{option[2:]}")
        elif isinstance(value, dict):
            line += [word for k, v in value.items() for word in (option, f"{k}={v}")]
        else:
            line += [option, _number(value) if isinstance(value, float) else str(value)]
    return " ".join(map(shell, line))


def _number(value: float) -> str:
    """The shortest text of this very number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def over_time(samples: Path, warn: Warn) -> bytes | None:
    """JPEG: at most `SHEETS` of the sheets in `samples`, evenly spread, below each other, each
    under its step; None where there is none."""
    named = [(re.fullmatch(r"step-(\d+)\.png", file.name), file) for file in samples.glob("*")]
    sheets = sorted((int(found[1]), file) for found, file in named if found)
    last = len(sheets) - 1
    chosen = sorted({round(i * last / (SHEETS - 1)) for i in range(SHEETS)}) if sheets else []
    shown = []
    for step, path in (sheets[place] for place in chosen):
        try:
            with Image.open(path) as file:
                sheet = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            warn(path.name, f"{printable(path)} is left out of samples.jpg: {told(error)}")
            continue
        size = (WIDTH, max(1, round(sheet.height * WIDTH / sheet.width)))
        shown.append((step, sheet.resize(size, Image.Resampling.LANCZOS)))
    if not shown:
        return None
    whole = Image.new("RGB", (WIDTH, sum(LINE + sheet.height for _, sheet in shown)), "white")
    draw, font, y = ImageDraw.Draw(whole), ImageFont.load_default(size=14), 0
    for step, sheet in shown:
        draw.text((8, y + 3), f"step {step:,}", fill="black", font=font)
        whole.paste(sheet, (0, y + LINE))
        y += LINE + sheet.height
    jpeg = io.BytesIO()
    whole.save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()


def html(out: Path, text: str) -> str:
    """A page that needs nothing beside it; text: README.md, whose pictures lie in `out`."""
    from html import escape

    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text.split("\n", 1)[1])
    for name in PICTURES:
        if (out / name).is_file():
            kind = "png" if name.endswith("png") else "jpeg"
            data = base64.b64encode((out / name).read_bytes()).decode()
            body = body.replace(f'src="{name}"', f'src="data:image/{kind};base64,{data}"')
    return (
        f'<!doctype html>\n{MARK}\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(printable(out.name))}</title>\n<style>{STYLE}</style>\n{body}</html>\n"
    )
