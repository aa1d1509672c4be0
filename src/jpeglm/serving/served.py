"""A model under its name, and what one may ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jpeglm.codecs import Codec
from jpeglm.config import Sampling
from jpeglm.generation.model import Model
from jpeglm.inspection.kinds import traceable
from jpeglm.serving.batcher import Batcher
from jpeglm.serving.schemas import Generation

__all__ = ["Served"]


@dataclass(frozen=True)
class Served:
    """A checkpoint under its name. model and batcher: None of one that writes clips."""

    name: str
    folder: Path
    codec: Codec
    model: Model | None = None
    batcher: Batcher | None = None

    @property
    def size(self) -> str:
        """WIDTHxHEIGHT in pixels."""
        return f"{self.codec.config.width}x{self.codec.config.height}"

    def to_dict(self) -> dict[str, Any]:
        """As `/v1/models` shows it: that API's fields, and what one may ask of it."""
        tokenizer = self.model.tokenizer if self.model else None
        return {
            "id": self.name,
            "object": "model",
            "created": int((self.folder / "config.json").stat().st_mtime),
            "owned_by": "jpeglm",
            "media": self.codec.media,
            "size": self.size,
            "units": self.codec.units,
            "grid": _grid(self.codec),
            "words": bool(tokenizer and tokenizer.text),
            "classes": _classes(self.model) if self.model else [],
            "traces": traceable(self.codec),
            "holes": bool(tokenizer and tokenizer.addresses),
            "sampling": _sampling(self.model) if self.model else {},
            "sampling_of_edits": _sampling(self.model, begun=True) if self.model else {},
        }


def _grid(codec: Codec) -> str | None:
    """COLUMNSxROWS of a picture's units, which come in raster order; None of a clip's frames."""
    if codec.media != "picture":
        return None
    rows, columns = codec.grid  # type: ignore[attr-defined]
    return f"{columns}x{rows}"


def _classes(model: Model) -> list[str]:
    names = model.tokenizer.class_names
    return list(names or map(str, range(model.tokenizer.n_classes)))


def _sampling(model: Model, begun: bool = False) -> dict[str, Any]:
    """What holds where a request says nothing; begun: but gives a picture. Guidance only where
    there is something to guide."""
    guided = bool(model.tokenizer.text or model.classes)
    asked = [name for name in Sampling.names() if name in Generation.names()]
    values = Sampling().to_dict() | model.checkpoint.sampling(begun)
    return {name: values[name] for name in asked if guided or name != "guidance"}
