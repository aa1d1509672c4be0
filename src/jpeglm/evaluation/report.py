"""One HTML page out of a comparison: tables, plots and contact sheets, each with its command.

    write_report(results, Path("comparison.html"))

`results` is what `recipes/compare/compare.py` collects. The page stands alone: pictures are
embedded, nothing is fetched. What it says in words is computed from the numbers, by the rules
written beside them, so that it cannot disagree with its tables.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.evaluation.figures import completion_plot
from jpeglm.files import atomic_write

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
h1, h2 { line-height: 1.2; overflow-wrap: break-word } h2 { margin-top: 2.5rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left } thead { border-bottom: 2px solid #444 }
tbody tr:nth-child(even) { background: #f4f4f4 } .best { font-weight: 700 }
code, pre { font-size: .8rem; background: #f0f0f0; overflow-x: auto } pre { padding: .6rem }
.wide { overflow-x: auto }
img { max-width: 100%; image-rendering: pixelated } figure { margin: 1rem 0 }
small, figcaption { color: #555 }
"""


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _value(row: dict[str, Any] | None, best: bool) -> str:
    if row is None:
        return "–"
    low, high = row["interval"]
    text = f"{row['distance']:.1f} <small>({low:.1f}–{high:.1f})</small>"
    return f"<span class=best>{text}</span>" if best else text


def _kid(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{row['kid']:.4f}"


def _length(training: dict[str, Any]) -> str:
    found = training.get("tokens_per_image")
    return f"{found:.0f}" if found else "–"


def _embedded(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def verdicts(results: dict[str, Any]) -> list[str]:
    """What the numbers say, in words; a difference counts where the two intervals are apart."""
    said = []
    rivals = results["rivals"]
    tables = {n: r["completion"]["ratios"] for n, r in rivals.items() if "completion" in r}
    if "vq" in tables:
        shares = [key for key in tables["vq"] if key != "codec"]
        for name in ("jpeg-bytes", "jpeg-symbols"):
            if name not in tables:
                continue
            cuts = [1 - tables[name][k]["distance"] / tables["vq"][k]["distance"] for k in shares]
            apart = sum(_apart(tables[name][k], tables["vq"][k]) for k in shares)
            mean = 100 * float(np.mean(cuts))
            word = "lower" if mean > 0 else "higher"
            each = ", ".join(f"{-100 * cut:+.0f} %" for cut in cuts)
            said.append(
                f"Completions of {name} have a {abs(mean):.0f} % {word} distance than those of the "
                f"VQ transformer, mean over {len(shares)} shares kept "
                f"({each}); the intervals are apart at {apart} of {len(shares)}. The paper "
                "reports 31 % lower at 7B parameters and 256 pixels."
            )
    for key, what in (("completion", "completes"), ("unconditional", "draws new pictures")):
        scores = {}
        for name, row in rivals.items():
            if key == "completion" and key in row:
                table = row[key]["ratios"]
                scores[name] = float(np.mean([table[k]["distance"] for k in table if k != "codec"]))
            elif key in row:
                scores[name] = row[key]["distance"]
        if len(scores) > 1:
            order = sorted(scores, key=scores.__getitem__)
            shown = ", ".join(f"{name} {scores[name]:.1f}" for name in order)
            said.append(f"Who {what} best, by mean distance: {shown}.")
    if "longtail" in results:
        row = results["longtail"]["pearson_log_frequency"]
        sign = "positive, as in the paper" if row["r"] > 0 else "negative, unlike the paper"
        clear = "significant" if row["p"] < 0.05 else "not significant"
        said.append(
            f"Long tail: the difference of JPEG-LM to the VQ transformer and the logarithm of the "
            f"class's frequency correlate with r = {row['r']:+.2f} (p = {row['p']:.3f}): {sign}, "
            f"{clear} at 5 %."
        )
    return said


def _apart(a: dict[str, Any], b: dict[str, Any]) -> bool:
    (low, high), (least, most) = a["interval"], b["interval"]
    return bool(high < least or most < low)


def _rows(rivals: dict[str, Any], key: str) -> tuple[list[str], list[list[str]]]:
    tables = {name: row[key]["ratios"] for name, row in rivals.items() if key in row}
    shares = [k for k in next(iter(tables.values())) if k != "codec"]
    best = {k: min(tables, key=lambda name: tables[name][k]["distance"]) for k in shares}
    rows = []
    for name, table in tables.items():
        cells = [_value(table[k], best[k] == name) for k in shares]
        kids = " / ".join(_kid(table[k]) for k in shares)
        rows.append([name, *cells, _value(table["codec"], False), kids])
    return ["", *(f"r = {k}" for k in shares), "codec alone", "KID"], rows


def write_report(results: dict[str, Any], sheets: dict[str, tuple[bytes, str]], out: Path) -> None:
    """results: the comparison's JSON; sheets: title → (PNG, caption)."""
    rivals = results["rivals"]
    first = next(row for row in rivals.values() if "unconditional" in row)["unconditional"]
    metric = f"{first['metric']} ({first['extractor']}, {first['resizer']}, N = {first['n'][0]})"
    parts = [
        f"<h1>JPEG-LM and its rivals: {html.escape(results['data'])}</h1>",
        f"<p>Distances are {metric}; lower is better; 95 % intervals by resampling pictures. "
        f"Every rival spent {results['flops']:.2g} training FLOPs on the same pictures"
        " (both stages of VQ counted).</p>",
        "<h2>In words</h2><ul>"
        + "".join(f"<li>{html.escape(line)}</li>" for line in verdicts(results))
        + "</ul>",
        "<h2>Training</h2>",
        _table(
            ["", "parameters", "tokens a picture", "pictures seen", "FLOPs", "of these stage one"],
            [
                [
                    name,
                    f"{row['training']['parameters']:,}",
                    _length(row["training"]),
                    f"{row['training']['images']:,}",
                    f"{row['training']['flops']:.2g}",
                    f"{row['training'].get('stage_one', 0):.2g}",
                ]
                for name, row in rivals.items()
            ],
        ),
    ]
    if any("completion" in row for row in rivals.values()):
        parts += ["<h2>Completion (the paper's table 1)</h2>", _table(*_rows(rivals, "completion"))]
        tables = {n: r["completion"]["ratios"] for n, r in rivals.items() if "completion" in r}
        plot = completion_plot(tables, first["metric"])
        parts.append(_embedded(plot, "Completion, by share kept"))
    parts += [
        "<h2>New pictures (table 3)</h2>",
        _table(
            ["", "distance", "KID"],
            [
                [name, _value(row["unconditional"], False), _kid(row["unconditional"])]
                for name, row in rivals.items()
                if "unconditional" in row
            ],
        ),
    ]
    if any("half" in row for row in rivals.values()):
        parts += [
            "<h2>Half-size pictures on black (table 4)</h2>",
            "<p>Measured on the active part only.</p>",
            _table(*_rows(rivals, "half")),
        ]
    if "reconstruction" in results:
        rows = [
            [
                name,
                f"{row.get('tokens', row.get('latents', 0)):.0f}",
                f"{row['psnr']:.2f} dB",
                f"{row['ssim']:.3f}",
            ]
            for name, row in results["reconstruction"]["coders"].items()
        ]
        parts += [
            "<h2>What the codecs alone lose</h2>",
            _table(["", "tokens (VAE: numbers)", "PSNR", "SSIM"], rows),
        ]
    if any("validity" in row for row in rivals.values()):
        rows = [
            [
                name,
                *(
                    f"{row['validity'][key]['complete_as_sampled']} of "
                    f"{row['validity'][key]['streams']}"
                    for key in ("with_grammar", "without_grammar")
                ),
            ]
            for name, row in rivals.items()
            if "validity" in row
        ]
        parts += [
            "<h2>Complete, valid streams</h2>",
            _table(["", "with the grammar", "without"], rows),
        ]
    if "longtail" in results:
        rows = [
            [str(r["label"]), f"{r['frequency']:,}", f"{r['a']:.1f}", f"{r['b']:.1f}",
             f"{r['difference']:+.1f}"]
            for r in results["longtail"]["classes"]
        ]  # fmt: skip
        parts += [
            "<h2>Long tail</h2>",
            _table(["class", "training pictures", "jpeg-symbols", "vq", "difference"], rows),
        ]
    for title, (png, caption) in sheets.items():
        parts += [f"<h2>{html.escape(title)}</h2>", _embedded(png, caption)]
    commands = "\n".join(results["commands"])
    parts += ["<h2>Commands</h2>", f'<pre tabindex="0">{html.escape(commands)}</pre>']
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<title>{html.escape(results['data'])}: JPEG-LM and its rivals</title>"
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )
    atomic_write(out, page.encode())
