"""Model cards: a template in cards/ for each checkpoint, one for what all say of their training.

Fields are filled with what the run came to (`run.trained`), with the text on its training, and with
what its recipe measured. Cards that ship are as their recipe wrote them then: a change here shows
in the next release.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from release.run import Release, trained

CARDS = Path(__file__).parent / "cards"
STAGE = (
    "- {steps:,} steps, {images:,} {media} seen, {tokens:,} tokens, {minutes:.0f} minutes on "
    "{machine}."
)


def template(name: str) -> str:
    """cards/NAME.md"""
    return (CARDS / f"{name}.md").read_text(encoding="utf-8")


def card(release: Release, media: str, **facts: Any) -> str:
    """The card of a finished run; media: what it learnt from, `pictures` or `clips`; facts: the
    fields that only its own template has."""
    run = trained(release.out)
    training = template("training").format(
        stages=stages(run, media, release.began_with),
        recipe=release.recipe,
        commands="\n".join(f"    {command}" for command in release.steps.shown),
    )
    return template(release.name).format(**run, training=training.rstrip("\n"), **facts)


def stages(run: dict[str, Any], media: str, before: Path | None) -> str:
    """The runs behind a checkpoint, a line each: `run`, as `trained` tells of it, began with the
    weights of the checkpoint `before`, whose card names those before it, or with none."""
    earlier: list[str] = []
    if before:
        told = (before / "README.md").read_text().partition("## Training")[2].partition("##")[0]
        earlier = [line for line in told.splitlines() if line.startswith("- ")]
    return "\n".join([*earlier, STAGE.format(**run, media=media)])


def coder_table(table: dict[str, Any]) -> str:
    """The likelihood table of pictures, best coder first."""
    lines = [
        "| coder | bits a picture | 95 % interval | against Huffman | in one file |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(table["coders"].items(), key=lambda item: item[1]["bits_per_image"]):
        low, high = row["interval"]
        shared = row.get("together")
        lines.append(
            f"| {name} | {row['bits_per_image']:.0f} | {low:.0f} to {high:.0f} | "
            f"{100 * row['against_huffman']:+.1f} % | "
            + (f"{100 * shared['against_huffman']:+.1f} % |" if shared else "|")
        )
    return "\n".join(lines)


def folder_table(table: dict[str, Any]) -> str:
    """Bits of a held-out picture by the folder that it lies in, the dearest first; `evaluate
    likelihood`'s `by_folder`."""
    lines = [
        "| source | held-out pictures | crops | bits of one | Huffman | against it | Lepton |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = sorted(table["by_folder"].items(), key=lambda item: -item[1]["bits_per_image"]["model"])
    for name, row in rows:
        bits = row["bits_per_image"]
        lepton = (
            f"{100 * (bits['lepton'] / bits['huffman'] - 1):+.1f} %" if "lepton" in bits else ""
        )
        lines.append(
            f"| {name} | {row['distinct_pictures']} | {row['pictures']} | {bits['model']:.0f} | "
            f"{bits['huffman']:.0f} | {100 * row['against']:+.1f} % | {lepton} |"
        )
    return "\n".join(lines)


def copying(told: dict[str, Any]) -> dict[str, str]:
    """The fields of what `release.copied` tells."""
    near = told["pixels"]
    return {
        "same": f"{100 * told['the same as one seen']['drawn']:.1f} %",
        "near": f"{100 * near['nearer than 90 % of the held out']:.0f} %",
        "apart": f"{near['drawn']:.1f}",
        "usual": f"{near['held out']:.1f}",
    }


def best_rival(table: dict[str, Any]) -> tuple[str, float]:
    """(name, bits against Huffman) of the best coder that is not the model."""
    rivals = {
        name: row["against_huffman"]
        for name, row in table["coders"].items()
        if not name.startswith("model")
    }
    best = min(rivals, key=rivals.__getitem__)
    return best, rivals[best]
