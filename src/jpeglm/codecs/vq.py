"""A trained VQ-VAE as a codec: a picture is a grid of codes, raster order, one symbol each.

Two kinds of weights: our own (`jpeglm train-vqvae`) and any VQModel in `diffusers` form (a folder
with config.json and diffusion_pytorch_model.safetensors). torch is imported when the first picture
comes. Codes are the nearest neighbours of floating-point vectors: another processor may round one
in some thousands to another code, so a stream is repeatable on a machine, not across all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jpeglm.codecs.learned import WEIGHTS, LearnedCodec
from jpeglm.config import InputError, Settings, check_fit, fits, shorten
from jpeglm.files import read_bytes, read_json

DIFFUSERS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class VqConfig(Settings):
    """A trained VQ model and the size of the pictures that it codes."""

    width: int = 32
    """Pixels, a multiple of the model's downsampling."""
    height: int = 32
    """Pixels, a multiple of the model's downsampling."""
    fit: str = "crop"
    """As for JPEG: `crop`, `top`, or `pad` with black."""
    kind: str = "jpeglm"
    """`jpeglm` (models.vqvae.VqVaeConfig) or `diffusers` (VQModel's config.json)."""
    model: dict[str, Any] = field(default_factory=dict)
    """The architecture, as its kind's settings."""
    weights: str = ""
    """Their hash."""

    def __post_init__(self) -> None:
        if self.kind not in ("jpeglm", "diffusers"):
            raise InputError(f"kind is {self.kind!r}; choose jpeglm or diffusers")
        for name in ("width", "height"):
            value = getattr(self, name)
            if value < 1 or value % self.downsampling:
                raise InputError(
                    f"{name} is {value}; it must be a multiple of the VQ model's downsampling, "
                    f"{self.downsampling}"
                )
        check_fit(self.fit)

    def _whole(self, key: str, default: int, most: int) -> int:
        value = self.model.get(key, default)
        if not fits(value, "int") or not 1 <= value <= most:
            raise InputError(
                f"{key} is {shorten(value)}; it must be a whole number from 1 to {most}"
            )
        return int(value)

    @property
    def downsampling(self) -> int:
        if self.kind == "diffusers":
            channels = self.model.get("block_out_channels", (64,))
            if not isinstance(channels, list | tuple) or not 1 <= len(channels) <= 8:
                raise InputError(
                    f"block_out_channels is {shorten(channels)}; it is a list of 1 to 8"
                )
            return int(2 ** (len(channels) - 1))
        return self._whole("downsampling", 4, 64)

    @property
    def codes(self) -> int:
        if self.kind == "diffusers":
            return self._whole("num_vq_embeddings", 256, 65536)
        return self._whole("codes", 512, 65536)


def open_diffusers(folder: Path, width: int, height: int, fit: str = "crop") -> VqCodec:
    """A codec from a folder that `VQModel.save_pretrained` wrote."""
    settings = read_json(folder / "config.json")
    if settings.get("_class_name") != "VQModel":
        raise InputError(
            f"{folder / 'config.json'} describes {settings.get('_class_name')!r}, not a VQModel"
        )
    model = {name: value for name, value in settings.items() if not name.startswith("_")}
    config = VqConfig(width, height, fit, "diffusers", model)
    return VqCodec(config, read_bytes(folder / DIFFUSERS))


class VqCodec(LearnedCodec[VqConfig]):
    """Pictures ⇄ codes. weights: the bytes of codec.safetensors."""

    name = "vq"

    @property
    def size(self) -> int:
        return self.config.codes

    @property
    def grid(self) -> tuple[int, int]:
        f = self.config.downsampling
        return self.config.height // f, self.config.width // f

    @cached_property
    def model(self) -> Any:
        """The network in eval mode; it has encode and decode as `models.vqvae.VqVae`."""
        import torch
        from safetensors.torch import load

        try:
            state = load(self.weights)
        except Exception as error:  # safetensors has a class of its own
            raise InputError(f"{WEIGHTS} is not a complete safetensors file: {error}") from error
        if not all(bool(torch.isfinite(value).all()) for value in state.values()):
            raise InputError(f"{WEIGHTS} holds values that are not finite")
        if self.config.kind == "diffusers":
            return _Diffusers(self.config.model, state)
        from jpeglm.models.vqvae import VqVae, VqVaeConfig

        with torch.device("meta"):  # shapes are compared before anything is allocated
            model = VqVae(VqVaeConfig.from_dict(self.config.model))
        _fill(model, state)
        return model.eval()

    def encode_batch(self, pictures: np.ndarray) -> np.ndarray:
        import torch

        from jpeglm.models.autoencoder import to_tensor

        with torch.inference_mode():
            codes: torch.Tensor = self.model.encode(to_tensor(pictures))
            return codes.flatten(1).numpy()

    def decode_batch(self, codes: np.ndarray) -> np.ndarray:
        import torch

        from jpeglm.models.autoencoder import to_pictures

        with torch.inference_mode():
            grid = torch.from_numpy(np.asarray(codes, np.int64)).reshape(-1, *self.grid)
            return to_pictures(self.model.decode(grid))

    @cached_property
    def codebook(self) -> np.ndarray:
        """float32 [codes, d]: the vectors that codes stand for."""
        return np.asarray(self.model.codebook.detach().float().numpy())

    def vectors(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 [B, H, W, 3] of the codec's size → float32 [B, units, d]: what the encoder makes of
        each patch, before the nearest code takes its place."""
        import torch

        from jpeglm.models.autoencoder import to_tensor

        with torch.inference_mode():
            found = self.model.vectors(to_tensor(pictures)).flatten(2)
            return np.asarray(found.permute(0, 2, 1).numpy())

    def alone(self, codes: np.ndarray) -> np.ndarray:
        """Codes int64 [N] → uint8 [N, f, f, 3]: what the decoder draws of each where it stands
        among its like."""
        import torch

        from jpeglm.models.autoencoder import to_pictures

        f = self.config.downsampling
        with torch.inference_mode():
            grid = torch.from_numpy(np.asarray(codes, np.int64))[:, None, None].expand(-1, 3, 3)
            return to_pictures(self.model.decode(grid))[:, f : 2 * f, f : 2 * f]


def _fill(model: Any, state: dict[str, Any]) -> None:
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InputError(f"{WEIGHTS} does not fit its codec.json: {error}") from error


class _Diffusers:
    """A diffusers VQModel behind the methods of `models.vqvae.VqVae` that are used here."""

    def __init__(self, settings: dict[str, Any], state: dict[str, Any]) -> None:
        from diffusers import VQModel

        try:
            self._model = VQModel.from_config(settings)
        except Exception as error:  # whatever its layers make of the settings
            raise InputError(f"diffusers cannot build this VQModel: {error}") from error
        _fill(self._model, state)
        self._model.eval()

    @property
    def codebook(self) -> Any:
        return self._model.quantize.embedding.weight

    def vectors(self, x: Any) -> Any:
        return self._model.encode(x).latents

    def encode(self, x: Any) -> Any:
        latents = self.vectors(x)
        _, _, (_, _, indices) = self._model.quantize(latents)
        return indices.reshape(latents.shape[0], *latents.shape[2:])

    def decode(self, codes: Any) -> Any:
        settings = self._model.config
        shape = (*codes.shape, settings.vq_embed_dim or settings.latent_channels)
        latents = self._model.quantize.get_codebook_entry(codes.flatten(), shape)
        return self._model.decode(latents, force_not_quantize=True).sample
