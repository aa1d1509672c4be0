"""Feature extractors for Fréchet distances: what a picture is to an ImageNet classifier.

`resnet50` is He et al. 2015 with Keras' published weights, a local file that
`recipes/data/resnet50.py` makes (2048 numbers after the global average pool); `inception` is the
InceptionV3 of the literature through torch-fidelity, which fetches its weights where it can. Only
with `inception` may a distance be called FID; results always name extractor, resizer and N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional as F

from jpeglm.config import InputError, Settings, shorten
from jpeglm.files import told
from jpeglm.tensors import read_safetensors

Progress = Callable[[int, int, str], None]
RESNET50 = Path("data/resnet50.safetensors")
"""Where the recipe puts the weights unless told otherwise."""
MAKE = f"run: python recipes/data/resnet50.py {RESNET50}, or give --weights"


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
        if size < 32:
            raise InputError(f"--resize is {size}; ResNet-50 needs at least 32 pixels")
        if not Path(weights).is_file():
            raise InputError(f"there is no file {weights}, the weights of ResNet-50; {MAKE}")
        self.size, self.resizer = size, f"bicubic with antialiasing to {size}"
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        arrays, kinds = read_safetensors(Path(weights))
        for name, shape in self.shapes().items():
            if name not in arrays or (arrays[name].shape, kinds[name]) != (shape, "F32"):
                raise InputError(f"{weights} does not hold ResNet-50: {name} is not there as "
                                 f"float32 of {shape}; {MAKE}")  # fmt: skip
            if not np.isfinite(arrays[name]).all():
                raise InputError(f"{name} in {weights} holds values that are not finite; {MAKE}")
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        self._weights = {name: tensor.to(self.device) for name, tensor in tensors.items()}

    @classmethod
    def shapes(cls) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights that features need, by name: [out, in, height, width], [out]."""
        found: dict[str, tuple[int, ...]] = {"conv1": (64, 3, 7, 7)}
        inside = 64
        for name, _, middle in cls._bottlenecks():
            outside = 4 * middle
            if inside != outside:
                found[f"{name}.1"] = (outside, inside, 1, 1)
            found[f"{name}.2a"] = (middle, inside, 1, 1)
            found[f"{name}.2b"] = (middle, middle, 3, 3)
            found[f"{name}.2c"] = (outside, middle, 1, 1)
            inside = outside
        weights = {f"{name}.weight": shape for name, shape in found.items()}
        return weights | {f"{name}.bias": shape[:1] for name, shape in found.items()}

    @classmethod
    def _bottlenecks(cls) -> Iterator[tuple[str, int, int]]:
        """(name, stride, width in the middle) of each."""
        for stage, blocks in enumerate(cls.BLOCKS, start=2):
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 2 else 1
                yield f"{stage}{'abcdef'[block]}", stride, 16 * 2**stage

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
        for name, stride, _ in self._bottlenecks():
            x = self._bottleneck(x, name, stride)
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
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except RuntimeError as error:  # torchvision of CUDA beside torch for CPUs, or the reverse
            raise InputError(
                f"torchvision does not fit torch {torch.__version__} ({told(error)}); install both "
                "from the same index"
            ) from error
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if weights and not Path(weights).is_file():
            raise InputError(f"there is no file {weights}, the weights of InceptionV3")
        try:
            self._model: Any = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048"],
                feature_extractor_weights_path=str(weights) if weights else None,
            ).to(self.device)
        except Exception as error:  # whatever torch finds wrong with a file
            problem = f"{weights} holds no weights of" if weights else "there are no weights for"
            raise InputError(
                f"{problem} InceptionV3 ({shorten(told(error))}); give --weights with those of "
                "torch-fidelity, or use --extractor resnet50"
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
