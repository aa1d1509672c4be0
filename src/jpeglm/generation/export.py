"""A checkpoint as somebody else meets it: a folder for a model hub, which shows what it draws.

    model = load("runs/mine")
    export(model.checkpoint, Path("hf"), model.generate(16))

The weights of every checkpoint load in stock `transformers` as they lie. What this adds: a dtype,
and a card whose front matter hubs read, with a sheet that the model has drawn and with code that
turns its ids into a file, which a test runs.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

from jpeglm.checkpoint import Checkpoint, write_checkpoint
from jpeglm.checkpoint.card import front_matter, parted
from jpeglm.config import InputError
from jpeglm.files import printable, read_bytes
from jpeglm.generation.pictures import Pictures
from jpeglm.models.llama import parameters

SHEET = "samples.jpg"
BEGIN, END = "<!-- jpeglm export -->", "<!-- /jpeglm export -->"
"""Around what an export has added to a card, which the next one replaces."""
SAMPLES, LARGE = 16, 200_000_000
"""Drawn for a sheet, but by models of more parameters than a CPU draws with in minutes."""
LONGEST = 1 << 20
"""Bytes of a card."""
CODE = """\
import torch
from jpeglm import Matcher, Tokenizer
from transformers import AutoModelForCausalLM

folder = "."  # where this card lies, or what the hub calls it, downloaded
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), Tokenizer.load(folder)
longest = model.config.max_position_embeddings
matcher = Matcher(tokenizer, max_tokens=longest)

def legal(_, ids):  # the grammar: which tokens may come next
    if len(ids) > 1:
        matcher.accept(int(ids[-1]))
    return matcher.allowed().nonzero()[0].tolist()

begin = torch.tensor([[tokenizer.bos]])
ids = model.generate(begin, max_length=longest, prefix_allowed_tokens_fn=legal)[0].numpy()
file = tokenizer.codec.wrap(tokenizer.decode_stream(ids))
open("drawn{extension}", "wb").write(file)
"""


def usual_samples(config: dict[str, Any]) -> int:
    """Pictures or clips of a sheet where nobody says how many, by a model's config."""
    return SAMPLES if parameters(config) <= LARGE else 0


def export(
    checkpoint: Checkpoint,
    folder: Path,
    drawn: Pictures | None = None,
    dtype: str = "bfloat16",
    licence: str | None = None,
) -> None:
    """Write a checkpoint folder with weights in `dtype` and a card with a sheet of what the model
    has drawn; licence: its name on Hugging Face, default what the card states."""
    files, shown = {}, ""
    if drawn is not None:
        out = BytesIO()
        drawn.sheet().save(out, "JPEG", quality=90)
        files[SHEET] = out.getvalue()
        what = checkpoint.codec.media + "s" * (len(drawn) != 1)
        shown = f"![{len(drawn)} {what} that the model drew from nothing]({SHEET})"
    file = checkpoint.folder / "README.md"
    text = card(checkpoint, _text(file) if file.exists() else "", shown, licence)
    write_checkpoint(
        folder,
        checkpoint.weights,
        checkpoint.config,
        checkpoint.tokenizer,
        text,
        checkpoint.generation,
        dtype,
        files,
    )


def _text(file: Path) -> str:
    try:
        return read_bytes(file, LONGEST).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{printable(file)} is no UTF-8 text; save it as such") from error


def card(checkpoint: Checkpoint, before: str, picture: str, licence: str | None) -> str:
    """A card with front matter, picture and code, above what the checkpoint's own card says."""
    known, body = parted(before)
    codec = checkpoint.codec
    head = front_matter(checkpoint.tokenizer, known | ({"license": licence} if licence else {}))
    body = re.sub(f"{BEGIN}.*?{END}", "", body, flags=re.DOTALL).strip()
    title, rest = f"# A Llama of {parameters(checkpoint.config) / 1e6:.1f} M parameters", body
    if body.startswith("# "):
        title, _, rest = body.partition("\n")
    added = [
        BEGIN,
        picture,
        f"Its tokens spell no text but a {codec.name} file. `jpeglm generate --checkpoint DIR` "
        "draws with it; so does stock `transformers`, which jpeglm's grammar keeps to whole files:",
        f"```python\n{CODE.format(extension=codec.extension)}```",
        END,
    ]
    parts = [f"{head}\n{title}", *added, rest.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"
