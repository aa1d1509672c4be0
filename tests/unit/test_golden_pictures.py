"""What the shipped models draw, to the byte: a seed gives the same files on every machine, in any
batch, whatever is rebuilt inside. JPEGLM_REGENERATE=1 writes the hashes anew."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from jpeglm.generation.loading import load

GOLDEN = Path(__file__).parents[1] / "golden" / "pictures.json"
ASSETS = Path(load.__code__.co_filename).parents[1] / "assets"
PRECISIONS = ("int8", "bfloat16", "float32")
CASES = {
    "photos": {
        "new": ("generate", {"n": 20, "seed": 5}),
        "calm": ("generate", {"n": 2, "temperature": 0.6, "top_k": 0, "top_p": 1.0}),
        "short": ("generate", {"n": 2, "max_tokens": 240, "seed": 1}),
        "free": ("generate", {"n": 2, "grammar": False, "seed": 2}),
        "half": ("complete", {"n": 3, "keep": 0.5}),
        "most": ("complete", {"n": 2, "keep": 0.8, "seed": 9, "temperature": 0.0}),
        "hole": ("fill", {"n": 2, "seed": 3}),
    },
    "cifar10": {
        "class": ("generate", {"n": 3, "label": 3}),
        "guided": ("generate", {"n": 3, "label": 7, "guidance": 2.5, "seed": 4}),
        "guided half": ("complete", {"n": 2, "label": 1, "guidance": 1.5}),
    },
    "avatars": {
        "words": ("generate", {"n": 2, "text": "adventurer, long green hair, glasses"}),
        "plain": ("generate", {"n": 1, "text": "a toon character", "guidance": 1, "seed": 3}),
        "nothing said": ("generate", {"n": 1, "seed": 2}),
    },
    "clips": {
        "new": ("generate", {"n": 1}),
        "rest": ("complete", {"n": 2}),
    },
}  # fmt: skip


def middle(shown):
    """A mask of the middle of a photo."""
    with Image.open(shown) as photo:
        width, height = photo.size
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    return mask


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_pictures_are_those_of_before(name, precision):
    if name == "clips":
        pytest.importorskip("av")
    model = load(name, precision=precision)
    shown = ASSETS / ("ball.mp4" if name == "clips" else "astronaut.jpg")
    found = {}
    for case, (verb, options) in CASES[name].items():
        media = [] if verb == "generate" else [shown]
        if verb == "fill":
            media += [middle(shown)]
        # One precision draws one at a time, the others fewer or more at once than there are.
        batch = {"int8": 16, "bfloat16": 1, "float32": 2}[precision]
        drawn = getattr(model, verb)(*media, batch=batch, **options)
        marks = [hashlib.md5(stream).hexdigest() for stream in drawn.streams]
        found[case] = {"md5": marks, "bits": [round(bits, 3) for bits in drawn.bits]}
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("JPEGLM_REGENERATE"):
        known.setdefault(name, {})[precision] = found
        GOLDEN.write_text(json.dumps(known, indent=1) + "\n")
    assert found == known[name][precision]
