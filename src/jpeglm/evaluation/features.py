"""Feature extractors for Fréchet distances: what a picture is to an ImageNet classifier.

`resnet50` is He et al. 2015 with Keras' published weights, a local file that
`recipes/data/resnet50.py` makes (2048 numbers after the global average pool); `inception` is the
InceptionV3 of the literature through torch-fidelity, which fetches its weights where it can. Only
with `inception` may a distance be called FID; results always name extractor, resizer and N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional as F

from jpeglm.config import InputError, Settings

Progress = Callable[[int, int, str], None]
RESNET50 = Path("data/resnet50.safetensors")
"""Where the recipe puts the weights unless told otherwise."""


class Extractor(Protocol):
    name: str
    metric: str
    """What a Fréchet distance on these features is called."""
    resizer: str
    width: int
    """Numbers a picture."""

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] → float32 [N, width]."""


class ResNet50:
    """The network by hand, normalisation folded into the convolutions (see the recipe).

    224 × 224 BGR ─7×7/2─▶ pool ─▶ 3, 4, 6, 3 bottlenecks of 256, 512, 1024, 2048 ─▶ mean
    """

    name, metric, width = "resnet50", "frechet-resnet50", 2048
    MEAN = (103.939, 116.779, 123.68)
    BLOCKS = (3, 4, 6, 3)

    def __init__(
        self, weights: Path = RESNET50, device: str | None = None, size: int = 224
    ) -> None:
        from safetensors.torch import load_file

        if size < 32:
            raise InputError(f"--resize is {size}; ResNet-50 needs at least 32 pixels")
        if not Path(weights).exists():
            raise InputError(
                f"there is no file {weights}, the weights of ResNet-50; run: "
                "python recipes/data/resnet50.py data/resnet50.safetensors, or give --weights"
            )
        self.size, self.resizer = size, f"bicubic with antialiasing to {size}"
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._weights = {name: w.to(self.device) for name, w in load_file(weights).items()}

    def _conv(self, x: torch.Tensor, name: str, stride: int = 1, padding: int = 0) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.conv2d(x, weight, bias, stride, padding)

    def _bottleneck(self, x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        y = F.relu(self._conv(x, f"{name}.2a", stride))
        y = F.relu(self._conv(y, f"{name}.2b", padding=1))
        y = self._conv(y, f"{name}.2c")
        if f"{name}.1.weight" in self._weights:
            x = self._conv(x, f"{name}.1", stride)
        return F.relu(x + y)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, S, S], RGB in [0, 255] → [B, 2048]."""
        x = x.flip(1) - torch.tensor(self.MEAN, device=x.device).reshape(1, 3, 1, 1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu(self._conv(x, "conv1", 2, 3)), 3, 2, 1)
        for stage, blocks in enumerate(self.BLOCKS, start=2):
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 2 else 1
                x = self._bottleneck(x, f"{stage}{'abcdef'[block]}", stride)
        return x.mean((2, 3))

    def classify(self, pictures: np.ndarray) -> np.ndarray:
        """ImageNet logits [N, 1000], to see that the weights are right."""
        found = torch.from_numpy(self(pictures)).to(self.device)
        return F.linear(found, self._weights["fc.weight"], self._weights["fc.bias"]).cpu().numpy()

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.array(pictures)).to(self.device)
        x = x.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 255)
        return self.features(x).float().cpu().numpy()


class Inception:
    """torch-fidelity's InceptionV3 with the weights of the original FID (2048 numbers)."""

    name, metric, width = "inception", "FID", 2048
    resizer = "bilinear as in TensorFlow 1 to 299 (torch-fidelity)"

    def __init__(self, weights: Path | None = None, device: str | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            self._model: Any = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048"],
                feature_extractor_weights_path=str(weights) if weights else None,
            ).to(self.device)
        except OSError as error:
            raise InputError(
                f"InceptionV3's weights cannot be fetched ({error}); give them with --weights, or "
                "use --extractor resnet50"
            ) from error

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)
        found: torch.Tensor = self._model(x.to(self.device))[0]
        return found.float().cpu().numpy()


EXTRACTORS = ("resnet50", "inception")


@dataclass(frozen=True)
class ExtractorConfig(Settings):
    """What a picture is to a Fréchet distance."""

    extractor: str = "resnet50"
    """resnet50 (local weights) or inception (FID; the extra fid)."""
    weights: Path | None = None
    """The extractor's weights file; of resnet50 by default data/resnet50.safetensors."""
    resize: int | None = None
    """Side in pixels of what resnet50 sees; default 224. 112 costs a quarter and loses nothing for
    pictures that are no larger."""


def make_extractor(config: ExtractorConfig, device: str | None = None) -> Extractor:
    """The extractor; weights default to where its recipe or library puts them."""
    if config.extractor == "resnet50":
        return ResNet50(config.weights or RESNET50, device, config.resize or 224)
    if config.extractor == "inception":
        if config.resize is not None:
            raise InputError("--resize is resnet50's; inception resizes to 299 as FID prescribes")
        return Inception(config.weights, device)
    raise InputError(f"--extractor is {config.extractor!r}; choose one of {', '.join(EXTRACTORS)}")


def extract(
    extractor: Extractor, pictures: np.ndarray, batch: int = 32, progress: Progress | None = None
) -> np.ndarray:
    """Features float32 [N, width] of uint8 [N, H, W, 3]."""
    parts = []
    for start in range(0, len(pictures), batch):
        parts.append(extractor(pictures[start : start + batch]))
        if progress:
            progress(min(start + batch, len(pictures)), len(pictures), "features")
    return np.concatenate(parts)
