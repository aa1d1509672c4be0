"""What ships with the package, in a few words each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jpeglm.checkpoint import load_checkpoint


@dataclass(frozen=True)
class ShippedModel:
    """A checkpoint of the package; `jpeglm.load` takes its name."""

    name: str
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
    assets = Path(str(resources.files("jpeglm"))) / "assets"
    return [_read(file.parent) for file in sorted(assets.glob("*/config.json"))]


def _read(folder: Path) -> ShippedModel:
    checkpoint = load_checkpoint(folder)
    tokenizer, config = checkpoint.tokenizer, checkpoint.codec.config
    names = tokenizer.class_names or tuple(map(str, range(tokenizer.n_classes)))
    kind = "clips" if checkpoint.codec.media == "clip" else "pictures"
    return ShippedModel(
        name=folder.name,
        writes=f"{kind} of {config.width} × {config.height}",
        parameters=sum(array.size for array in checkpoint.weights.values()),
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
        classes=names,
        words=tokenizer.text is not None,
        holes=tokenizer.addresses > 0,
        folder=folder,
    )
