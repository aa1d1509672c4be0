"""Pictures from a VAE's prior: the rival that completes nothing.

from jpeglm.generation.loading import load
load("runs/vae/model").generate(16).images
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load as load_weights

from jpeglm.codecs.learned import WEIGHTS, weights_hash
from jpeglm.config import InputError, check_seed, whole
from jpeglm.files import read_bytes, read_json
from jpeglm.generation.outputs import Drawn
from jpeglm.generation.pictures import Each, Pictures, Progress
from jpeglm.models.autoencoder import to_pictures, to_tensor
from jpeglm.models.vae import Vae, VaeConfig


class VaePrior:
    """A trained VAE with the face of `Model`, as far as a VAE has one."""

    codec = None
    classes = 0

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        record = read_json(self.folder / "codec.json")
        values = dict(record["codec"])
        del values["codec"]
        expected = values.pop("weights", None)
        weights = read_bytes(self.folder / WEIGHTS)
        if weights_hash(weights) != expected:
            raise InputError(
                f"{self.folder / WEIGHTS} is not the one that codec.json names ({expected}); the "
                "files do not belong together"
            )
        self.config = VaeConfig.from_dict(values)
        self.fingerprint = str(record.get("fingerprint"))
        with torch.device("meta"):  # shapes are compared before anything is allocated
            self.model = Vae(self.config)
        try:
            state = load_weights(weights)
            self.model.load_state_dict(state, assign=True)
        except Exception as error:  # safetensors and torch have classes of their own
            raise InputError(
                f"{self.folder / WEIGHTS} does not fit its codec.json: {error}"
            ) from error
        if not all(bool(torch.isfinite(value).all()) for value in state.values()):
            raise InputError(f"{self.folder / WEIGHTS} holds values that are not finite")
        self.model.eval()

    @torch.inference_mode()
    def generate(
        self,
        n: int = 1,
        *,
        seed: int = 0,
        batch: int = 16,
        progress: Progress | None = None,
        each: Each | None = None,
        **options: Any,
    ) -> Pictures:
        """Decode n vectors drawn from N(0, 1), all at once; a token's options are refused."""
        given = [name for name, value in options.items() if value not in (None, True)]
        if given:
            raise InputError(f"{self.folder} is a VAE, which draws no tokens and has no {given[0]}")
        n, seed = whole("n", n, 1), check_seed(seed)
        start = time.perf_counter()
        pixels = to_pictures(self.model.sample(n, seed))
        images = [Image.fromarray(picture) for picture in pixels]
        if progress:
            progress(n, n, 0)
        seconds = time.perf_counter() - start
        settings = {"seed": seed, "n": n}
        pictures = Pictures(images, seconds=seconds, settings=settings, record=self.record())
        for number, image in enumerate(images):
            if each:
                each(pictures, Drawn(number, image, None, 0, 0.0))
        return pictures

    @property
    def weights_mark(self) -> str:
        return self.fingerprint

    def record(self) -> dict[str, Any]:
        """What names this model in results."""
        return {"vae": self.config.to_dict(), "fingerprint": self.fingerprint}

    @torch.inference_mode()
    def reconstruct(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] → the pictures at the posterior's mean."""
        return to_pictures(self.model(to_tensor(pixels))[0])

    def complete(self, *_: Any, **__: Any) -> NoReturn:
        """Say in words why there is no such thing."""
        raise InputError(
            f"{self.folder} is a VAE, which has no order to continue in and completes nothing; "
            "use generate, or a checkpoint of jpeglm train"
        )

    fill = complete
