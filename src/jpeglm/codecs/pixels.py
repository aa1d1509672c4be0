"""Raw pixels as a codec: each pixel one of a small palette learnt by clustering (ImageGPT).

Chen et al. 2020 (section 3.1): k-means over the RGB values of training pixels, 512 colours, one
symbol a pixel in raster order. `learn_palette` makes the palette, a codec's weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from safetensors.numpy import load, save

from jpeglm.codecs.images import fit_image
from jpeglm.codecs.learned import WEIGHTS, LearnedCodec
from jpeglm.config import InputError, Settings, check_fit
from jpeglm.kernels import kernel


@dataclass(frozen=True)
class PixelsConfig(Settings):
    """A palette and the size of the pictures that are made of it."""

    width: int = 32
    """Pixels."""
    height: int = 32
    """Pixels."""
    colors: int = 512
    """Colours of the palette."""
    fit: str = "crop"
    """As for JPEG: `crop`, `top`, or `pad` with black."""
    weights: str = ""
    """Hash of the palette."""

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not 0 < getattr(self, name) <= 4096:
                raise InputError(f"{name} is {getattr(self, name)}; it must be from 1 to 4096")
        if not 2 <= self.colors <= 65536:
            raise InputError(f"colors is {self.colors}; a palette has 2 to 65536")
        check_fit(self.fit)


def learn_palette(
    images: Iterable[Image.Image], width: int, height: int, colors: int, seed: int = 0
) -> np.ndarray:
    """uint8 [colors, 3]: k-means over at most 200,000 pixels of the pictures, dark to light."""
    from scipy.cluster.vq import kmeans2

    rng = np.random.default_rng(seed)
    parts = [np.asarray(fit_image(image, width, height, "crop")) for image in images]
    if not parts:
        raise InputError("there is no picture to learn a palette from")
    pixels = np.concatenate([part.reshape(-1, 3) for part in parts])
    pixels = pixels[rng.permutation(len(pixels))[:200_000]].astype(np.float32)
    distinct = np.unique(pixels, axis=0)
    if len(distinct) <= colors:
        found = distinct
    else:
        found, _ = kmeans2(pixels, colors, iter=20, minit="++", rng=seed)
    palette = np.unique(np.rint(found).clip(0, 255).astype(np.uint8), axis=0)
    missing = colors - len(palette)  # clusters that met in one colour
    if missing > 0:
        taken = {tuple(color) for color in palette.tolist()}
        greys = [(v, v, v) for v in range(256) if (v, v, v) not in taken]
        more = greys[:missing] + rng.integers(0, 256, (max(0, missing - len(greys)), 3)).tolist()
        palette = np.concatenate([palette, np.array(more, np.uint8)])
    light = palette.astype(np.float64) @ [0.299, 0.587, 0.114]
    return palette[np.argsort(light, kind="stable")]


@kernel()
def _nearest(pixels, palette, codes):
    """Index of the nearest colour of each pixel to codes, int64 [n]; the first of equally near
    ones. pixels uint8 [n, 3], palette int64 [colours, 3]."""
    for i in range(len(pixels)):
        red, green, blue = np.int64(pixels[i, 0]), np.int64(pixels[i, 1]), np.int64(pixels[i, 2])
        best, nearest = np.int64(1 << 30), 0
        for k in range(len(palette)):
            distance = (
                (red - palette[k, 0]) ** 2
                + (green - palette[k, 1]) ** 2
                + (blue - palette[k, 2]) ** 2
            )
            if distance < best:
                best, nearest = distance, k
        codes[i] = nearest


class PixelsCodec(LearnedCodec[PixelsConfig]):
    """Pictures ⇄ palette indices. weights: the bytes of codec.safetensors, or a palette."""

    name = "pixels"

    def __init__(self, config: PixelsConfig, weights: bytes | np.ndarray | None = None) -> None:
        if isinstance(weights, np.ndarray):
            weights = save({"palette": np.ascontiguousarray(weights, np.uint8)})
        super().__init__(config, weights)
        try:
            palette = load(self.weights).get("palette")
        except Exception as error:  # safetensors raises a class of its own, numpy whatever it meets
            raise InputError(f"{WEIGHTS} is not a complete safetensors file: {error}") from error
        if palette is None or palette.dtype != np.uint8 or palette.shape != (config.colors, 3):
            raise InputError(f"{WEIGHTS} holds no palette of {config.colors} colours")
        self.palette: np.ndarray = palette

    @property
    def size(self) -> int:
        return self.config.colors

    @property
    def grid(self) -> tuple[int, int]:
        return self.config.height, self.config.width

    def encode_batch(self, pictures: np.ndarray) -> np.ndarray:
        codes = np.empty((len(pictures), self.units), np.int64)
        _nearest(pictures.reshape(-1, 3), self.palette.astype(np.int64), codes.reshape(-1))
        return codes

    def decode_batch(self, codes: np.ndarray) -> np.ndarray:
        colours: np.ndarray = self.palette[codes]
        return colours.reshape(-1, *self.grid, 3)
