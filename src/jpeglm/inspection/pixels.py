"""From pixels to quantised blocks, step by step as libjpeg goes: colours, subsampling, DCT.

What a stream's blocks hold is read from the stream (`inspection.scan`); here the same numbers are
made from the pixels, with the values between the steps. The DCT is exact here and integer in
libjpeg, so that a level now and then is another by one.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from jpeglm.config import JpegConfig
from jpeglm.syntax.jpeg_tables import ZIGZAG

SAMPLING = {name: (wide // 8, high // 8) for name, (wide, high) in JpegConfig.MCU.items()}
"""Blocks of luma in an MCU, across and down; of chroma there is one each."""

TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)


def _basis() -> np.ndarray:
    """float64 [8, 8]: rows are the cosines of T.81 A.3.3, orthonormal."""
    u, x = np.arange(8)[:, None], np.arange(8)[None]
    cosines = np.cos((2 * x + 1) * u * np.pi / 16) / 2
    cosines[0] /= np.sqrt(2)
    return cosines


BASIS = _basis()


def ycbcr(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of RGB ones, in 16 bits of fraction as libjpeg (JFIF 1.02, page 3)."""
    weights = np.round(np.array(TO_YCBCR) * 65536).astype(np.int64)
    offset = np.array([32768, (128 << 16) + 32767, (128 << 16) + 32767])
    return np.asarray((pixels.astype(np.int64) @ weights.T + offset) >> 16, np.uint8)


def planes(image: Image.Image, subsampling: str) -> list[np.ndarray]:
    """uint8 [H, W] of each component: Y, and Cb and Cr averaged as libjpeg does (its rounding
    alternates, so that it has no bias)."""
    if subsampling == "gray":
        return [np.asarray(image.convert("L"))]
    luma, *chroma = np.moveaxis(ycbcr(np.asarray(image.convert("RGB"))), 2, 0)
    across, down = SAMPLING[subsampling]
    return [luma, *(_averaged(plane, across, down) for plane in chroma)]


def _averaged(plane: np.ndarray, across: int, down: int) -> np.ndarray:
    if across == 1:
        return plane
    height, width = plane.shape
    cells = plane.reshape(height // down, down, width // across, across)
    bias = np.arange(width // across) % 2 + (down == 2)
    return np.asarray((cells.sum((1, 3), dtype=np.int64) + bias) >> down, np.uint8)


def block_of(plane: np.ndarray, column: int, row: int) -> np.ndarray:
    """uint8 [8, 8]: the samples of a block."""
    return plane[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]


def forward(samples: np.ndarray) -> np.ndarray:
    """float64 [8, 8]: the DCT of samples [8, 8], 128 taken off."""
    return np.asarray(BASIS @ (samples.astype(np.float64) - 128) @ BASIS.T)


def quantised(coefficients: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """int64 [64] in zigzag order: coefficients [8, 8] over steps [8, 8], half rounded away from 0
    as libjpeg does."""
    ratio = coefficients / steps
    levels = np.sign(ratio) * np.floor(np.abs(ratio) + 0.5)
    return np.asarray(levels.reshape(-1)[ZIGZAG], np.int64)


def rows_of(zigzag: np.ndarray) -> np.ndarray:
    """[8, 8] of 64 values in zigzag order."""
    out = np.empty(64, zigzag.dtype)
    out[ZIGZAG] = zigzag
    return out.reshape(8, 8)


def backward(levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """float64 [8, 8]: the samples that levels [64] in zigzag order stand for."""
    return np.asarray(BASIS.T @ (rows_of(levels) * steps) @ BASIS + 128)


def png_uri(image: Image.Image) -> str:
    """A PNG as a data URI."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
