"""Which tokens, picture sizes and model sizes learn a codec's streams best: bits against FLOPs.

    python recipes/token_study.py photos          the alphabets and vocabularies, at 64 px
    python recipes/token_study.py photos --seeds 3 --only bytes-320 jpeg-block-symbols-1024
    python recipes/token_study.py restart | small | wider | longer | scaling | shape | clips

Every run of a study trains a Llama from scratch for the same FLOPs (PaLM's count, appendix B) with
the same number of tokens a step; forms differ in what their study names alone. Runs lie in
runs/tokens/<shards>/<form>-<seed>, are resumed, and serve every study that names them; the table
and its plot are written to docs/results/tokens-<study>.{json,svg} after each of them, and the table
to its place in docs/tokens.md or docs/clips.md.

Trade-off: a run's learning rate falls to its own end, so that a curve's last point is what its
budget can give; the points before would be a little lower in shorter runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from steps import BATCH_TOKENS, JPEGLM, ROOT, Steps, steps_for
from studies import SHARDS, STUDIES, Form

from jpeglm.environment import environment
from jpeglm.files import atomic_write, read_json, write_json
from jpeglm.models.llama import flops_per_token

POINTS = 6
"""Evaluations of a run."""
DRAWN = 100
"""Streams that a run's model draws without grammar."""


def data_of(form: Form) -> None:
    """Prepare the shards of a form, where no recipe of their own does."""
    done, made = form.data / "dataset.json", SHARDS[form.shards].made
    if made.endswith(".py"):
        if not done.exists():
            sys.exit(f"{form.data} is missing; run python {made} first")
        return
    if not Path("data/photos/corpus.json").exists():
        sys.exit("data/photos is missing; run python recipes/data/photos.py data/photos first")
    words = ["prepare", "data/photos", form.data, "--split", "folder", *made.split()]
    Steps().do(done, *JPEGLM, *words)


def train(form: Form, seed: int, threads: int) -> None:
    """One run, to its end; the first seed's model also draws, with the grammar and without."""
    data_of(form)
    tokenizer = form.home / f"{form.tokens}-tokenizer"
    steps = Steps()
    steps.do(
        tokenizer / "tokenizer.json",
        *JPEGLM, "train-tokenizer", form.data, "--out", tokenizer,
        "--alphabet", form.alphabet, "--vocab-size", form.vocabulary,
    )  # fmt: skip
    out = form.home / f"{form.name}-{seed}"
    count = steps_for(form.budget, form.data, tokenizer, form.preset, form.model)
    model_words = [
        word for item in form.model.items() for word in ("--model", "{}={}".format(*item))
    ]
    steps.do(
        out / "finished",
        *JPEGLM, "train", form.data, "--tokenizer", tokenizer, "--out", out,
        "--preset", form.preset, *model_words, "--steps", count, "--batch-tokens", BATCH_TOKENS,
        "--seed", seed, "--threads", threads, "--compile", "on", "--samples", 0,
        "--eval-every", -(-count // POINTS), "--eval-images", 256, "--save-every", 100,
    )  # fmt: skip
    if seed == 0:
        model = out / "model"
        steps.do(
            out / "validity" / "result.json",
            *JPEGLM, "evaluate", "validity", "--checkpoint", model, "-n", DRAWN,
            "--out", out / "validity",
        )  # fmt: skip
        steps.do(
            out / "drawn" / "run.json",
            *JPEGLM, "generate", "-n", 16, "--checkpoint", model, "--out", out / "drawn",
        )  # fmt: skip


def curve(run: Path) -> dict[str, Any]:
    """What a run came to: FLOPs, streams seen and held-out bits at each evaluation."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    record = read_json(run / "config.json")
    trained = {row["step"]: row for row in rows if "images" in row}
    last = max(trained.values(), key=lambda row: row["step"])
    length = last["tokens"] / last["images"]
    each = flops_per_token(record["model"], round(length)) * last["tokens"] / last["step"]
    measured = {row["step"]: row for row in rows if row["step"] and "bits_per_image" in row}
    return {
        "tokens_per_stream": length,
        "parameters": record["parameters"],
        "flops": [step * each for step in measured],
        "streams": [step * last["images"] / last["step"] for step in measured],
        "bits": [row["bits_per_image"] for row in measured.values()],
    }


def collect(name: str) -> dict[str, Any]:
    """All finished runs of a study."""
    study = STUDIES[name]
    forms: dict[str, Any] = {}
    for form in study.forms:
        found = sorted(form.home.glob(f"{form.name}-[0-9]/finished"))
        if not found:
            continue
        runs = [curve(path.parent) for path in found]
        final = [run["bits"][-1] for run in runs]
        forms[study.label(form)] = {
            "budget": form.budget,
            "bits": float(np.mean(final)),
            "least": min(final),
            "most": max(final),
            "seeds": len(final),
            "parameters": runs[0]["parameters"],
            "tokens_per_stream": float(np.mean([run["tokens_per_stream"] for run in runs])),
            "runs": runs,
        }
        first = form.home / f"{form.name}-0"
        if (first / "drawn" / "run.json").exists():
            drawn = read_json(first / "drawn" / "run.json")
            forms[study.label(form)] |= {
                "complete_without_grammar": read_json(first / "validity" / "result.json")[
                    "without_grammar"
                ]["complete_as_sampled"],
                "seconds_a_stream": drawn["seconds"] / drawn["pictures"],
            }
    for row in forms.values():
        equal = [other for other in forms.values() if other["budget"] == row["budget"]]
        best = min(equal, key=lambda other: other["bits"])
        # Where the best form's mean curve first is as low as this one's end, in FLOPs and streams.
        for measure in ("flops", "streams"):
            x, y = mean_curve(best["runs"], measure)
            # Seeds see unequal numbers of streams, so a mean curve may end a little above its mean.
            reached = [at for at, bits in zip(x, y) if bits <= max(row["bits"], y[-1])]
            end = mean_curve(row["runs"], measure)[0][-1]
            row[f"best_form_needs_{measure}"] = min(reached) / end if reached else None
    results = {"study": name, "unit": study.unit, "forms": forms} | environment()
    if study.law and len(ends(results)) > 4:
        results["law"] = law(results)
    return results


def table(results: dict[str, Any]) -> str:
    """The study as a Markdown table, best form first."""
    unit = results["unit"]
    lines = [
        f"| tokens | parameters | tokens a {unit} | {unit}s seen | bits a {unit} (seeds) "
        f"| FLOPs that the best needs | {unit}s that it needs | whole without grammar, of {DRAWN} "
        f"| seconds to draw one |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(results["forms"].items(), key=lambda item: item[1]["bits"]):
        seen = np.mean([run["streams"][-1] for run in row["runs"]])
        spread = f"{row['least']:.0f} to {row['most']:.0f}, " if row["seeds"] > 1 else ""
        needs = (row["best_form_needs_flops"], row["best_form_needs_streams"])
        shares = " | ".join("–" if x is None else f"{100 * x:.0f} %" for x in needs)
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.1f} M | {row['tokens_per_stream']:.0f} | "
            f"{seen:,.0f} | {row['bits']:.0f} ({spread}{row['seeds']}) | {shares} | "
            f"{row.get('complete_without_grammar', '–')} | "
            + (f"{row['seconds_a_stream']:.2f} |" if "seconds_a_stream" in row else "– |")
        )
    return "\n".join(lines)


def quote(name: str, results: dict[str, Any]) -> None:
    """Put the table between the marks of its name in the documents."""
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    for page in (ROOT / "docs" / "tokens.md", ROOT / "docs" / "clips.md"):
        text = page.read_text()
        if first in text:
            head, rest = text.split(first)
            text = f"{head}{first}{table(results)}\n{last}{rest.split(last)[1]}"
            atomic_write(page, text.encode())


def mean_curve(runs: list[dict[str, Any]], measure: str = "flops") -> tuple[np.ndarray, np.ndarray]:
    """(FLOPs or streams, bits) of equally long runs, the mean over seeds, 200 places on straight
    lines."""
    end = min(run[measure][-1] for run in runs)
    x = np.linspace(max(run[measure][0] for run in runs), end, 200)
    return x, np.mean([np.interp(x, run[measure], run["bits"]) for run in runs], axis=0)


@contextmanager
def chart(out: Path, x: str, y: str, log: bool) -> Iterator[Any]:
    """Axes to draw on, saved to `out` afterwards; log: whether x is."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    yield axes
    axes.set(xlabel=x, ylabel=y, xscale="log" if log else "linear")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


def plot(results: dict[str, Any], out: Path) -> None:
    """One line a form, its seeds as dots."""
    rows = results["forms"].items()
    budgets = {row["budget"] for _, row in rows}
    bits = f"bits a held-out {results['unit']}"
    with chart(out, "training FLOPs", bits, len(budgets) > 1) as axes:
        for name, row in rows:
            label = f"{name} ({row['tokens_per_stream']:.0f} tokens)"
            x, y = mean_curve(row["runs"])
            (line,) = axes.plot(x, y, label=label)
            for run in row["runs"]:
                axes.plot(run["flops"], run["bits"], ".", color=line.get_color(), alpha=0.6)


def ends(results: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(form, tokens seen, bits) at the end of every run."""
    return [
        (name, run["streams"][-1] * run["tokens_per_stream"], run["bits"][-1])
        for name, row in results["forms"].items()
        for run in row["runs"]
    ]


def law(results: dict[str, Any]) -> dict[str, float]:
    """How bits fall with the tokens seen, whatever the model's size: the floor, scale and exponent
    of bits = floor + scale (tokens / 1e6)^-exponent (the part of Hoffmann et al. 2022, arXiv
    2203.15556, equation 2, that depends on data), and the root mean square of the runs' relative
    distance from it."""
    from scipy.optimize import least_squares

    _, tokens, bits = (np.array(column) for column in zip(*ends(results)))
    seen, low = tokens.astype(float) / 1e6, bits.astype(float)

    def distance(x: np.ndarray) -> np.ndarray:
        return np.log((np.exp(x[0]) + np.exp(x[1]) * seen ** -x[2]) / low)

    found = least_squares(distance, [np.log(low.min() / 2), np.log(low.min() / 2), 0.5])
    floor, scale, exponent = np.exp(found.x[0]), np.exp(found.x[1]), found.x[2]
    rms = float(np.sqrt((found.fun**2).mean()))
    return {"floor": float(floor), "scale": float(scale), "exponent": float(exponent), "rms": rms}


def plot_law(results: dict[str, Any], out: Path) -> None:
    """The runs' ends against tokens seen, a colour a model size, with the law."""
    fitted = results["law"]
    points = ends(results)
    with chart(out, "tokens seen", f"bits a held-out {results['unit']}", True) as axes:
        for size in sorted({row["parameters"] for row in results["forms"].values()}):
            here = [p for p in points if results["forms"][p[0]]["parameters"] == size]
            axes.plot(*zip(*[p[1:] for p in here]), "o", label=f"{size / 1e6:.1f} M")
        seen = [tokens for _, tokens, _ in points]
        x = np.geomspace(min(seen), max(seen), 100)
        y = fitted["floor"] + fitted["scale"] * (x / 1e6) ** -fitted["exponent"]
        axes.plot(x, y, color="grey", alpha=0.6, label="law")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="names of forms")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT, help="where data/ and runs/ lie")
    arguments = parser.parse_args()
    os.chdir(arguments.work)
    study = STUDIES[arguments.study]
    unknown = set(arguments.only or ()) - {form.name for form in study.forms}
    if unknown:
        names = ", ".join(form.name for form in study.forms)
        sys.exit(f"{arguments.study} has no {', '.join(sorted(unknown))}; it has {names}")
    out = ROOT / "docs" / "results" / f"tokens-{arguments.study}.json"
    # Seeds outside: after the first round there is one run of every form to compare.
    for seed in range(arguments.seeds):
        for form in study.forms:
            if arguments.only and form.name not in arguments.only:
                continue
            train(form, seed, arguments.threads)
            results = collect(arguments.study)
            write_json(out, results)
            plot(results, out.with_suffix(".svg"))
            if "law" in results:
                plot_law(results, out.with_name(f"{out.stem}-law.svg"))
            quote(out.stem, results)
    print(table(results))


if __name__ == "__main__":
    main()
