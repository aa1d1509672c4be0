"""What a run folder says of itself: README.md, curves.png, samples.jpg, report.html.

    README.md       a run's own text, with its curves and its samples
    curves.png      loss, and what is measured on held-out pictures, over steps
    samples.jpg     some of the sheets in samples/, the first and the last among them
    report.html     README.md and those two as one file, for a mail or a browser

All are written anew after every evaluation from what lies in the folder, so that they hold for one
that was copied, killed or begun by an older version. A README.md without our first line is
somebody's notes and stays.
"""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from jpeglm.config import install
from jpeglm.files import atomic_write

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
        try:
            atomic_write(out / "curves.png", plot())
        except ModuleNotFoundError as error:
            warn("curves", f"no curves.png is drawn: {error.name} is missing; {install('train')}")
    if sheets := sorted((out / "samples").glob("step-*.png")):
        atomic_write(out / "samples.jpg", over_time(sheets))
    told, file = text(), out / "README.md"
    if file.exists() and not file.read_bytes().startswith(MARK.encode()):
        warn("notes", f"{file} is not ours and stays as it is; rename it to have the run described")
    else:
        atomic_write(file, told.encode())
    try:
        atomic_write(out / "report.html", html(out, told).encode())
    except ModuleNotFoundError as error:
        warn("report", f"no report.html is written: {error.name} is missing; {install('train')}")


def picture(out: Path, name: str) -> list[str]:
    """The line of README.md that shows one of `PICTURES`, where it lies in `out`."""
    return [f"![{PICTURES[name]}]({name})"] if (out / name).exists() else []


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
            line += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(line)


def over_time(sheets: list[Path]) -> bytes:
    """JPEG: at most `SHEETS` of them, evenly spread, below each other, each under its step."""
    last = len(sheets) - 1
    chosen = sorted({round(i * last / (SHEETS - 1)) for i in range(SHEETS)})
    shown = []
    for place in chosen:
        with Image.open(sheets[place]) as file:
            sheet = file.convert("RGB")
        size = (WIDTH, max(1, round(sheet.height * WIDTH / sheet.width)))
        shown.append((sheets[place], sheet.resize(size, Image.Resampling.LANCZOS)))
    whole = Image.new("RGB", (WIDTH, sum(LINE + sheet.height for _, sheet in shown)), "white")
    draw, font, y = ImageDraw.Draw(whole), ImageFont.load_default(size=14), 0
    for path, sheet in shown:
        draw.text((8, y + 3), f"step {int(path.stem[5:]):,}", fill="black", font=font)
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
        if (out / name).exists():
            kind = "png" if name.endswith("png") else "jpeg"
            data = base64.b64encode((out / name).read_bytes()).decode()
            body = body.replace(f'src="{name}"', f'src="data:image/{kind};base64,{data}"')
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(out.name)}</title>\n<style>{STYLE}</style>\n{body}</html>\n"
    )
