"""docs/benchmarks.md out of docs/results/bench-*.json: python benchmarks/report.py

Whatever is said in words about a table stands here, whatever is a number in its JSON.
"""

from __future__ import annotations

import json
from typing import Any

from common import ROOT

from jpeglm.files import atomic_write

HEAD = """# Benchmarks

Made by `python benchmarks/report.py` from `docs/results/bench-*.json`; each file holds the
command, the processor, the versions and the commit. Contestants take turns in one run, so ratios
mean more than rates: the machines are shared. In brackets the least and the most of the turns.
`make bench` runs the short forms; `pip install -r benchmarks/requirements.txt` adds the peers. A
new peer of generation is one file in `benchmarks/peers`.
"""

TABLES: dict[str, tuple[str, str]] = {
    "generation": (
        "Generation",
        """Tokens/s of all sequences, prefill included, top-k 40 and top-p 0.9. `floor` is what one
core would reach if it only read the weights once a token. Aims on two cores: with 10M parameters
15 times transformers.generate and 2.5 times llama.cpp at batch 1, 6 times transformers and twice
the best peer at 16; with 85M 8 and 2 times, 4 and 1.8 times; 60 % of the floor at batch 1. int8
stays a little below that last one: the smaller the weights, the more of a step is what is not
reading them (attention, the draw, the call from Python; in the shipped model most of it). One
sequence runs on one core, for two that meet after every matrix stand still once another process
wants one of them.""",
    ),
    "masks": (
        "The grammar's cost a token",
        """Mask and advance on real streams, median, in brackets mean and 99th percentile; `first`
are the first pictures, while masks are computed, `later` what follows. Aim: a median of 3 and a
99th percentile of 20 microseconds. Masks of bytes at 64 px miss the percentile by six to twenty
times while they are new: a byte may stand at any node of a Huffman tree, so that states repeat
later, and a mask that is computed tries every byte bit by bit.""",
    ),
    "pictures-to-tokens": (
        "Pictures to token ids",
        """Aim at 256 px: 70 % of Pillow alone, 5 times Pillow and Hugging Face, 15 times the
authors' way. The sentencepiece row is not quite that way: they call it through a slow tokenizer of
transformers, which is left out here, and it stands nearer to ours than 15 times. A picture of 64 px
costs Pillow so little that reading its symbols back shows.""",
    ),
    "bpe-encode": (
        "BPE encoding alone",
        """The ids are compared first. Aim: 60 times Hugging Face, which was set by a release of
theirs that encoded 1.3 MB/s of bytes. Symbols stay further behind it than bytes do: there are three
to a byte, merges join most of them, and every token waits for its look-ups one after another.""",
    ),
    "bpe-training": ("BPE training", "The merges are the same (tests). Aim: faster."),
    "start": (
        "Time to the first picture",
        "Seconds of a whole process. Aim: 3 with a warm cache, 30 the first time.",
    ),
    "lengths": (
        "Cost against length",
        """One sequence on one core; `predicted` is the first row and the bytes of keys and values
that come on top, at the measured bandwidth.""",
    ),
    "memory": ("Memory of a process that draws on", "Aim: it does not grow."),
    "training": (
        "Training on a CPU",
        "Aim: 1.3 times Hugging Face's Trainer, padding below 3 %.",
    ),
    "device-cuda": (
        "On a GPU",
        """`floor` is what the device's memory allows if a step reads the weights and nothing else.
Training by the share of the FLOPs that a product of large matrices reaches.""",
    ),
    "clips": (
        "Clips",
        "H.264 of 256 x 144 and 15 frames. Aim: reading at 3 MB/s of stream.",
    ),
}


def section(name: str, record: dict[str, Any]) -> str:
    title, text = TABLES[name]
    machine = record["machine"]
    lines = [f"\n## {title}\n", f"{text}\n"]
    for caption, rows in record["tables"].items():
        lines += [f"{caption} ({record['unit']}):\n", "| | median | | against the first |"]
        lines.append("|---|---|---|---|")
        first = next(iter(rows.values()))["median"]
        for row, found in rows.items():
            cells = f"{number(found['least'])} to {number(found['most'])}"
            ratio = found["median"] / first
            lines.append(f"| {row} | {number(found['median'])} | ({cells}) | {ratio:.2f} |")
        lines.append("")
    if "unavailable" in record:
        missing = "; ".join(f"{who}: {why}" for who, why in record["unavailable"].items())
        lines.append(f"Not measured: {missing}.\n")
    lines.append(
        f"`{machine['command']}`, {machine['cores']} cores of {machine['processor']}, load "
        f"{machine['load']:.1f}, commit {machine['commit'][:10]}"
    )
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three digits at least, none behind the point from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def page() -> str:
    """docs/benchmarks.md as the results give it."""
    text = HEAD
    for name in TABLES:
        file = ROOT / "docs" / "results" / f"bench-{name}.json"
        if file.exists():
            text += section(name, json.loads(file.read_text()))
    return text


def main() -> None:
    atomic_write(ROOT / "docs" / "benchmarks.md", page().encode())
    print("docs/benchmarks.md")


if __name__ == "__main__":
    main()
