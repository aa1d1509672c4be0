"""Model cards: the front matter that model hubs read, and the lines that every card of ours has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from jpeglm.config import InputError, shorten
from jpeglm.tokenizer import Tokenizer

__all__ = ["LICENCE", "about", "check_licence", "front_matter", "parted"]

LICENCE = "unknown"
"""As Hugging Face names it, of a card that states none."""
TASKS = {False: "unconditional-image-generation", True: "text-to-image"}
"""What hubs call what a model of pictures does, by whether it has text."""


def check_licence(name: str) -> str:
    """A licence's name as hubs have it (apache-2.0); InputError for what YAML would take apart."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name, re.ASCII):
        raise InputError(
            f"the licence is {shorten(name)}; give its name as Hugging Face has it, such as "
            "apache-2.0 or cc-by-4.0"
        )
    return name


def front_matter(tokenizer: Tokenizer, known: Mapping[str, str] | None = None) -> str:
    """A card's first lines: licence, library, task and tags, beside the keys that are known, as
    they are written in YAML; the licence is kept, the others are said anew."""
    codec = tokenizer.codec
    clip = codec.media == "clip"
    tags = ["jpeglm", codec.name, "video-generation" if clip else "image-generation", "llama"]
    known = known or {}
    own = {
        "license": known.get("license", LICENCE),
        "library_name": "transformers",
        "pipeline_tag": "video-to-video" if clip else TASKS[tokenizer.text is not None],
        "tags": f"[{', '.join(tags)}]",
    }
    lines = [f"{key}: {value}" for key, value in {**known, **own}.items()]
    return "\n".join(["---", *lines, "---"])


def parted(text: str) -> tuple[dict[str, str], str]:
    """The front matter's values by key, as they are written, and what stands below it."""
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if not found:
        return {}, text
    parts = re.split(r"\n(?=[\w-]+:)", found[1])  # a list may go on for several lines
    pairs = (part.partition(":") for part in parts)
    return {key: value.strip(" ") for key, _, value in pairs}, text[found.end() :]


def about(tokenizer: Tokenizer) -> list[str]:
    """A list of what it writes, and in which tokens."""
    return [
        f"- codec: `{json.dumps(tokenizer.codec.to_dict())}`",
        f"- tokenizer: {tokenizer.fingerprint}, {tokenizer.alphabet.name}, "
        f"{tokenizer.vocab_size} tokens",
    ]
