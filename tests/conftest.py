"""Pictures for the tests: real ones that lie in tests/pictures, and synthetic ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture(scope="session")
def picture_files() -> list[Path]:
    return sorted(PICTURES.glob("*.jpg"))


@pytest.fixture(scope="session")
def pictures(picture_files) -> list[Image.Image]:
    """Real photographs, noise, a flat picture and a smooth one."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    smooth = rng.normal(0, 8, (48, 48, 3)).cumsum(0).cumsum(1) + 128
    return [
        *(Image.open(file).convert("RGB") for file in picture_files[:4]),
        noise,
        Image.new("RGB", (50, 70), (200, 30, 90)),
        Image.fromarray(np.clip(smooth, 0, 255).astype(np.uint8)),
    ]
