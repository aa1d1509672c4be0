"""docs/benchmarks.md out of docs/results/bench-*.json: python benchmarks/report.py

A table stands there once for every kind of processor that it was measured on.

Whatever is said in words about a table stands here, whatever is a number in its JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common import KINDS, ROOT, number

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
stays below that last one where a step is short: the smaller the weights, the more of it is what is
not reading them (attention, the draw, the call from Python; in the shipped model most of it). With
AVX-512 VNNI all are met with 10M and 85M: 40 and 11 times transformers at batch 1, 7.6 and 2.4
times llama.cpp, 60 and 99 % of the floor; at 16 9.2 and 7.6 times transformers, 3.1 and 3.9 times
the best peer. Missed with AVX2 alone: at batch 16 5.3 times transformers with 10M, 3.9 times it and
1.7 times CTranslate2 with 85M, where arithmetic is the limit (67 billion products a second and core
in int8); with 85M at batch 1 1.5 times llama.cpp, where ours reads weights as fast as one core
alone could read them.""",
    ),
    "masks": (
        "The grammar's cost a token",
        """Mask and advance on real streams, median, in brackets mean and 99th percentile; `first`
are the first pictures, while masks are computed, `later` what follows. Aim: a median of 3 and a
99th percentile of 20 microseconds. Where more than one mask in a hundred is new, the percentile is
what a new one takes: 1024 tokens of bytes at 64 px miss the aim by 2.4 to 2.8 times, since some 40
nanoseconds go to each token; on average they stay at a microsecond or below once some hundred
pictures are drawn.""",
    ),
    "preparing": (
        "Preparing pictures",
        """`jpeglm prepare` against Pillow alone, which only opens, crops, resizes and saves: what
judging, the canonical stream, hashing and Parquet cost on top, and what a second worker brings. Of
a few shards, so Ray, which starts a second actor late, shows its beginning more than its speed.""",
    ),
    "pictures-to-tokens": (
        "Pictures to token ids",
        """Aim at 256 px: 70 % of Pillow alone, 5 times Pillow and Hugging Face, 15 times the
authors' way, which is sentencepiece inside transformers' tokenizer in Python. A picture of 64 px
costs Pillow so little that reading its symbols back shows.""",
    ),
    "bpe-encode": (
        "BPE encoding alone",
        """The ids are compared first. Aim: 60 times Hugging Face, which was set by a release of
theirs that encoded 1.3 MB/s of bytes. Symbols stay further behind it than bytes do: there are three
to a byte, merges join most of them, and every token waits for its look-ups one after another.""",
    ),
    "bpe-training": (
        "BPE training",
        "On 10,000 streams. The merges are the same (tests). Aim: faster.",
    ),
    "precisions": (
        "What a precision costs",
        """Held-out pictures under the shipped models, by the engine that draws. Aim: int8 at most
0.5 % more bits than float32.""",
    ),
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
        """Aim: 1.3 times Hugging Face's Trainer, padding below 3 %. The Trainer steps with AdamW,
jpeglm with Muon. Torch's own Muon computes in bfloat16, which a processor without it emulates.""",
    ),
    "device": (
        "On a GPU",
        """`floor` is what the device's memory allows if a step reads the weights and nothing else.
Training by the share of the FLOPs that a product of large matrices reaches; 1b computes its
activations twice, which that share does not count.""",
    ),
    "clips": (
        "Clips",
        "H.264 of 256 x 144 and 15 frames. Aim: reading at 3 MB/s of stream.",
    ),
}


def results(name: str) -> list[Path]:
    """The files of a table; names may begin alike, kinds of processors begin with a letter."""
    files = [ROOT / "docs" / "results" / f"bench-{name}-{kind}.json" for kind in KINDS]
    return [file for file in files if file.exists()]


def tables(record: dict[str, Any]) -> str:
    machine = record["machine"]
    name = machine.get("device") or machine["vectors"] or "Another processor"
    lines = [f"\n### {name}\n"]
    for caption, rows in record["tables"].items():
        compare = record.get("compare", True)
        lines.append(f"{caption} ({record['unit']}):\n")
        lines.append("| | median | | against the first |" if compare else "| | | 95 % |")
        lines.append("|---|---|---|---|" if compare else "|---|---|---|")
        first = next(iter(rows.values()))["median"]
        for row, found in rows.items():
            cells = f"{number(found['least'])} to {number(found['most'])}"
            ratio = f" {found['median'] / first:.2f} |" if compare else ""
            lines.append(f"| {row} | {number(found['median'])} | ({cells}) |{ratio}")
        lines.append("")
    if "unavailable" in record:
        missing = "; ".join(f"{who}: {why}" for who, why in record["unavailable"].items())
        lines.append(f"Not measured: {missing}.\n")
    lines.append(
        f"`{machine['command']}`, {machine['cores']} cores of {machine['processor']} "
        f"({machine['vectors']}), load "
        f"{machine['load']:.1f}, commit {(machine['commit'] or 'unknown')[:10]}"
    )
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/benchmarks.md as the results give it."""
    text = HEAD
    for name, (title, words) in TABLES.items():
        found = results(name)
        if found:
            text += f"\n## {title}\n\n{words}\n"
        text += "".join(tables(json.loads(file.read_text())) for file in found)
    return text


def main() -> None:
    atomic_write(ROOT / "docs" / "benchmarks.md", page().encode())
    print("docs/benchmarks.md")


if __name__ == "__main__":
    main()
