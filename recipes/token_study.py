"""Which tokens learn a codec's streams best: curves of held-out bits against training FLOPs.

    python recipes/token_study.py photos --flops 2.5e13
    python recipes/token_study.py clips --flops 4e13

Every form of a study is trained from scratch on the same shards with the same Llama, the same
FLOPs (PaLM's count, appendix B) and the same number of tokens a step; forms differ in alphabet and
vocabulary alone. Runs lie in runs/tokens/<study>/<form>-<seed> and are resumed; the table and its
plot are written to docs/results/tokens-<study>.{json,svg} after each of them.

Trade-off: a run's learning rate falls to its own end, so that a curve's last point is what its
budget can give; the points before would be a little lower in shorter runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from steps import BATCH_TOKENS, JPEGLM, ROOT, Steps, steps_for

from jpeglm.environment import environment
from jpeglm.files import read_json, write_json
from jpeglm.models.llama import flops_per_token

POINTS = 6
"""Evaluations of a run."""


@dataclass(frozen=True)
class Form:
    """Tokens: an alphabet, and the size of the vocabulary with BOS and EOS; 266 leaves both
    alphabets of JPEG, 264 symbols each, without merges."""

    alphabet: str
    vocabulary: int

    @property
    def name(self) -> str:
        return f"{self.alphabet}-{self.vocabulary}"


@dataclass(frozen=True)
class Study:
    """shards: prepared data, made by the recipe named in `made_by`; unit: what a stream is."""

    shards: Path
    made_by: str
    unit: str
    forms: tuple[Form, ...]


STUDIES = {
    "photos": Study(
        Path("data/photos64"),
        "recipes/photos.py",
        "picture",
        (
            Form("jpeg-block-symbols", 1024),
            Form("bytes", 320),
            Form("jpeg-coarse-symbols", 1024),
            Form("jpeg-block-symbols", 2048),
            Form("jpeg-block-symbols", 512),
            Form("bytes", 1024),
            Form("jpeg-block-symbols", 266),
            Form("bytes", 266),
        ),
    ),
    "clips": Study(
        Path("data/motion-64x48"),
        "recipes/clips.py",
        "clip",
        (Form("avc-placed-symbols", 1024), Form("avc-symbols", 1024), Form("bytes", 320)),
    ),
}


def train(name: str, study: Study, form: Form, seed: int, arguments: argparse.Namespace) -> None:
    """One run, to its end."""
    home = Path("runs/tokens") / name
    tokenizer = home / f"{form.name}-tokenizer"
    steps = Steps()
    steps.do(
        tokenizer / "tokenizer.json",
        *JPEGLM, "train-tokenizer", study.shards, "--out", tokenizer,
        "--alphabet", form.alphabet, "--vocab-size", form.vocabulary,
    )  # fmt: skip
    out = home / f"{form.name}-{seed}"
    count = steps_for(arguments.flops, study.shards, tokenizer)
    steps.do(
        out / "finished",
        *JPEGLM, "train", study.shards, "--tokenizer", tokenizer, "--out", out, "--preset", "2m",
        "--steps", count, "--batch-tokens", BATCH_TOKENS, "--seed", seed,
        "--threads", arguments.threads, "--compile", "on", "--samples", 0,
        "--eval-every", -(-count // POINTS), "--eval-images", 256, "--save-every", 100,
    )  # fmt: skip


def curve(run: Path) -> dict[str, Any]:
    """What a run came to: FLOPs, streams seen and held-out bits at each evaluation."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    record = read_json(run / "config.json")
    trained = {row["step"]: row for row in rows if "images" in row}
    last = max(trained.values(), key=lambda row: row["step"])
    length = last["tokens"] / last["images"]
    each = flops_per_token(record["model"], round(length)) * last["tokens"] / last["step"]
    measured = {row["step"]: row for row in rows if "bits_per_image" in row}
    return {
        "tokens_per_stream": length,
        "parameters": record["parameters"],
        "flops": [step * each for step in measured],
        "streams": [step * last["images"] / last["step"] for step in measured],
        "bits": [row["bits_per_image"] for row in measured.values()],
    }


def collect(name: str, study: Study, flops: float) -> dict[str, Any]:
    """All finished runs of a study."""
    forms: dict[str, Any] = {}
    for form in study.forms:
        found = sorted(Path("runs/tokens", name).glob(f"{form.name}-[0-9]*/finished"))
        if not found:
            continue
        runs = [curve(path.parent) for path in found]
        final = [run["bits"][-1] for run in runs]
        forms[form.name] = {
            "bits": float(np.mean(final)),
            "least": min(final),
            "most": max(final),
            "seeds": len(final),
            "tokens_per_stream": float(np.mean([run["tokens_per_stream"] for run in runs])),
            "runs": runs,
        }
    best = min(forms.values(), key=lambda row: row["bits"])
    for row in forms.values():
        # Where the best form's mean curve first is as low as this one's end.
        x, y = mean_curve(best["runs"])
        reached = [at for at, bits in zip(x, y) if bits <= row["bits"]]
        row["best_form_needs"] = min(reached) / mean_curve(row["runs"])[0][-1] if reached else None
    return {"study": name, "unit": study.unit, "flops": flops, "forms": forms} | environment()


def mean_curve(runs: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(FLOPs, bits) of equally long runs, the mean over seeds, 200 places on straight lines."""
    end = min(run["flops"][-1] for run in runs)
    x = np.linspace(max(run["flops"][0] for run in runs), end, 200)
    return x, np.mean([np.interp(x, run["flops"], run["bits"]) for run in runs], axis=0)


def plot(results: dict[str, Any], out: Path) -> None:
    """One line a form, its seeds as a band."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    for name, row in results["forms"].items():
        label = f"{name} ({row['tokens_per_stream']:.0f} tokens)"
        x, y = mean_curve(row["runs"])
        (line,) = axes.plot(x, y, label=label)
        for run in row["runs"]:
            axes.plot(run["flops"], run["bits"], ".", color=line.get_color(), alpha=0.6)
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel(f"bits a held-out {results['unit']}")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--flops", type=float, default=4e13, help="of each run")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="names of forms")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT, help="where data/ and runs/ lie")
    arguments = parser.parse_args()
    os.chdir(arguments.work)
    study = STUDIES[arguments.study]
    if not (study.shards / "dataset.json").exists():
        sys.exit(f"{study.shards} is missing; run python {study.made_by} first")
    out = ROOT / "docs" / "results" / f"tokens-{arguments.study}.json"
    # Seeds outside: after the first round there is one run of every form to compare.
    for seed in range(arguments.seeds):
        for form in study.forms:
            if arguments.only and form.name not in arguments.only:
                continue
            train(arguments.study, study, form, seed, arguments)
            results = collect(arguments.study, study, arguments.flops)
            write_json(out, results)
            plot(results, out.with_suffix(".svg"))
    for name, row in results["forms"].items():
        print(f"{name}: {row['bits']:.0f} bits ({row['least']:.0f} to {row['most']:.0f})")


if __name__ == "__main__":
    main()
