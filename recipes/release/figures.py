"""Pictures for the documents: samples, and completions by several checkpoints side by side."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from steps import ROOT

from jpeglm.files import atomic_write
from jpeglm.generation.loading import load
from jpeglm.generation.sheets import contact_sheet

FIGURES = ROOT / "docs" / "figures"


def figure(tiles: Sequence[tuple[str, Image.Image]], columns: int, tile: int, out: Path) -> None:
    """Captioned pictures as one JPEG, to be shown in documents."""
    data = BytesIO()
    contact_sheet(list(tiles), columns, tile).save(data, "JPEG", quality=88)
    atomic_write(out, data.getvalue())


def side_by_side(
    models: dict[str, Path],
    pictures: Sequence[Image.Image],
    keep: float,
    out: Path,
    labels: Sequence[int] | None = None,
) -> None:
    """Completions of the same pictures by several checkpoints, a row a picture, two of each."""
    rows: list[list[tuple[str, Image.Image]]] = [[] for _ in pictures]
    for name, folder in models.items():
        model = load(folder)
        for number, picture in enumerate(pictures):
            label = labels[number] if labels is not None and model.classes else None
            drawn = model.complete(picture, keep, 2, label=label)
            if not rows[number]:
                rows[number] = [
                    ("original", model.codec.decode(drawn.original)),
                    ("prompt", model.codec.decode(drawn.prompt)),
                ]
            rows[number] += [(name, image) for image in drawn.images]
    figure([tile for row in rows for tile in row], 2 + 2 * len(models), 128, out)
