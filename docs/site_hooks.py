"""What the site has beyond the pages of this folder: files from elsewhere in the repository.

    model cards, CONTRIBUTING, CHANGELOG, recipes ▸ pages      tour.ipynb ▸ tour.md, by nbconvert
    results/*.json ▸ measurements.md                           the studio's icon ▸ assets

Pages stay as they are read in the repository, so links are turned here: what is a page of the site
leads to it, what else lies in the repository to where that is published (pyproject.toml).
"""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
CARDS = sorted((ROOT / "src" / "jpeglm" / "assets").glob("*/README.md"))
ELSEWHERE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "recipes/README.md": "recipes.md",
    "src/jpeglm/serving/studio/icon.svg": "assets/icon.svg",
    **{card.relative_to(ROOT).as_posix(): f"models/{card.parent.name}.md" for card in CARDS},
}
"""Files outside this folder that are pages or pictures of the site."""
OTHERWISE = {"docs/tour.ipynb": "tour.md", "docs/results": "measurements.md"}
"""What is a page under another name."""
LINK = re.compile(r"(\]\()([^)\s#]+)([^)]*\))")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made or lies elsewhere."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    notebook = files.get_file_from_path("tour.ipynb")
    assert notebook
    files.remove(notebook)
    text, pictures = tour()
    files.append(File.generated(config, "tour.md", content=text))
    for name, data in pictures.items():
        files.append(File.generated(config, name, content=data))
    files.append(File.generated(config, "measurements.md", content=measurements()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page; those inside fenced code are none."""
    here = page.file.src_uri
    homes = {page: source for source, page in ELSEWHERE.items()}
    folder = posixpath.dirname(homes.get(here, f"docs/{here}"))

    def turned(link: re.Match[str]) -> str:
        target = link[2]
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        place = posixpath.normpath(posixpath.join(folder, target))
        found = ELSEWHERE.get(place) or OTHERWISE.get(place)
        if not found and place.startswith("docs/"):
            found = place.removeprefix("docs/")
        if found:
            return link[1] + posixpath.relpath(found, posixpath.dirname(here) or ".") + link[3]
        if not (ROOT / place).exists():
            return link[0]  # which the strict build tells
        kind = "tree" if (ROOT / place).is_dir() else "blob"
        return f"{link[1]}{REPOSITORY}/{kind}/main/{place}{link[3]}"

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(turned, part) for part in parts[::2]]
    return "".join(parts)


def tour() -> tuple[str, dict[str, bytes]]:
    """The notebook as it was run: its Markdown, and pictures by their place in the site."""
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_filename(str(ROOT / "docs" / "tour.ipynb"))
    pictures = {f"tour/{name}": data for name, data in resources["outputs"].items()}
    for name in resources["outputs"]:
        text = text.replace(f"![png]({name})", f"![what the cell draws](tour/{name})")
    return text, pictures


def measurements() -> str:
    """A row for each JSON in docs/results: what made it, where, and of which commit."""
    rows = []
    for file in sorted((ROOT / "docs" / "results").glob("*.json")):
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        machine = about.get("machine") or about.get("environment") or about
        processor = machine.get("device") or machine.get("processor") or ""
        commit = str(machine.get("commit") or "")[:8]
        row = [f"[{file.stem}](results/{file.name})", _maker(file.stem, about), processor, commit]
        rows.append(f"| {' | '.join(row)} |")
    return (
        "# All results\n\nThe JSON files behind the figures of this site, as commands left them. "
        "[What is measured](results.md) and [the benchmarks](benchmarks.md) put them in words.\n\n"
        "| result | made by | processor | commit |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _maker(name: str, about: dict[str, Any]) -> str:
    """The command that made a result, or the page that has it."""
    machine = about.get("machine") or about.get("environment") or {}
    command = about.get("command") or machine.get("command")
    if "study" in about:
        command = f"python recipes/token_study.py {about['study']}"
    if command:
        return f"`{command}`"
    if "commands" in about:
        return f"[{len(about['commands'])} commands](results/{name}.html) on its page"
    model = name.split("-")[0]
    known = model in {card.parent.name for card in CARDS}
    return f"the recipe of [{model}](models/{model}.md)" if known else ""
