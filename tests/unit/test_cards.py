"""Model cards as the hub's own library reads them."""

from pathlib import Path

import pytest

import jpeglm
from jpeglm.checkpoint.card import front_matter
from jpeglm.tokenizer import Tokenizer

hub = pytest.importorskip("huggingface_hub")

ASSETS = Path(jpeglm.__file__).parent / "assets"
SHIPPED = sorted(path.parent.name for path in ASSETS.glob("*/README.md"))


def complete(text):
    """The card's data, if they say all that a model page shows of them."""
    card = hub.ModelCard(text)
    data = card.data.to_dict()
    assert data["library_name"] == "transformers" and data["license"]
    assert data["pipeline_tag"] in (
        "unconditional-image-generation", "text-to-image", "video-to-video"
    )  # fmt: skip
    assert {"jpeglm", "llama"} < set(data["tags"])
    assert all(isinstance(tag, str) for tag in data["tags"])
    assert card.text.lstrip().startswith("# ")
    return data


@pytest.mark.parametrize("name", SHIPPED)
def test_exports_of_what_ships(jpeglm, name, tmp_path):
    jpeglm.told("export", "--checkpoint", name, "--out", "hf", "--samples", 0, cwd=tmp_path)
    data = complete((tmp_path / "hf" / "README.md").read_text())
    drawings = ("avatars", "emoji")
    assert data["license"] == ("cc-by-4.0" if name in drawings else "apache-2.0")


def test_a_card_that_lacks_a_key_is_seen():
    text = front_matter(Tokenizer.load("photos")).replace("pipeline_tag", "pipeline") + "\n# x\n"
    with pytest.raises(KeyError):
        complete(text)


def test_what_is_known_is_kept():
    """Lists over several lines, and keys that are not ours."""
    known = {"license": "cc-by-4.0", "datasets": "\n- a\n- b", "pipeline_tag": "other"}
    text = front_matter(Tokenizer.load("avatars"), known) + "\n# x\n"
    data = complete(text)
    assert data["datasets"] == ["a", "b"] and data["license"] == "cc-by-4.0"
    assert data["pipeline_tag"] == "text-to-image"
