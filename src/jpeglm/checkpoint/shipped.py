"""What ships with the package, in a few words each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jpeglm.files import read_json
from jpeglm.models.llama import parameters
from jpeglm.places import shipped_checkpoints
from jpeglm.text import BYTE_NAMES
from jpeglm.tokenizer_file import HOLE_TEXT

__all__ = ["ShippedModel", "list_models"]


@dataclass(frozen=True)
class ShippedModel:
    """A checkpoint of the package; `jpeglm.load` takes its name."""

    name: str
    media: str
    """What one of its files is: `picture` or `clip`."""
    writes: str
    """What it draws, in words."""
    parameters: int
    bytes: int
    """Of its folder."""
    classes: tuple[str, ...]
    words: bool
    """Whether it draws to a text."""
    holes: bool
    """Whether it fills holes."""
    folder: Path
    """README.md in it is its card: data, training, figures, licence."""

    @property
    def takes(self) -> str:
        """What it can be told, in words."""
        told = [f"a label of {len(self.classes)}"] if self.classes else []
        told += ["a text"] * self.words + ["a mask"] * self.holes
        return ", ".join(told)


def list_models() -> list[ShippedModel]:
    """All checkpoints that ship, by name."""
    return [_read(folder) for folder in shipped_checkpoints()]


def _read(folder: Path) -> ShippedModel:
    """Out of its files alone: a codec's own libraries need not be installed."""
    config, stored = read_json(folder / "config.json"), read_json(folder / "tokenizer.json")
    record = read_json(folder / "codec.json")
    codec, special = record["codec"], [token["content"] for token in stored["added_tokens"]]
    numbers = [name for name in special if name.startswith("<class_")]
    media = "clip" if "frames" in codec else "picture"
    return ShippedModel(
        name=folder.name,
        media=media,
        writes=f"{media}s of {codec['width']} × {codec['height']}",
        parameters=parameters(config),
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
        classes=tuple(record.get("classes") or map(str, range(len(numbers)))),
        words=BYTE_NAMES[0] in stored["model"]["vocab"],
        holes=HOLE_TEXT in special,
        folder=folder,
    )
