"""From a checkpoint folder, or a shipped one's name, to a model with an engine.

from jpeglm.generation.loading import load
model = load("photos", precision="float32")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jpeglm.checkpoint import Checkpoint, is_vae, load_checkpoint
from jpeglm.compiling import compiling
from jpeglm.config import InputError, install
from jpeglm.generation.engine import Engine
from jpeglm.generation.model import Model
from jpeglm.generation.pictures import Pictures
from jpeglm.places import checkpoint_folder
from jpeglm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jpeglm.generation.vae import VaePrior

__all__ = ["complete", "fill", "generate", "load"]

PRECISION = {"cpu": "int8", "torch": "float32"}
"""Of each engine by default: int8 is twice to five times as fast on a CPU, and costs a twentieth of
a per cent of the bits (docs/benchmarks.md)."""

FUNCTIONS = {"picture": 77, "clip": 111}
"""That a first run compiles until a model is warm; other codecs than JPEG and AVC need fewer."""


def load(
    checkpoint: Path | str | None = None,
    *,
    engine: str = "cpu",
    precision: str | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> Model | VaePrior:
    """Open a checkpoint with an engine: a `Model`. It is a folder, or one that ships with the
    package by its name: `photos` (the default), `avatars`, `cifar10`, `clips`.

    engine: `cpu` (numba, no torch; precision int8, the default, bfloat16 or float32) or `torch`
    (device as torch names it, precision float32, the default, or bfloat16). A folder of `train-vae`
    gives a `VaePrior`, which has `generate` alone. The first time on a machine its kernels are
    compiled, which is shown on stderr.
    """
    folder = checkpoint_folder(checkpoint)
    if is_vae(folder):
        from jpeglm.generation.vae import VaePrior

        return VaePrior(folder)
    opened = load_checkpoint(folder)
    model = Model(opened, make_engine(opened, engine, precision, device, threads))
    if engine == "cpu":
        with compiling(FUNCTIONS[model.codec.media]):
            model.warm_up()
    return model


_kept: dict[tuple[Path, int], Model | VaePrior] = {}
"""Models of `generate`, `complete` and `fill`, by folder and its last change."""


def _model(checkpoint: Path | str | None) -> Model | VaePrior:
    folder = checkpoint_folder(checkpoint).resolve()
    changed = max((file.stat().st_mtime_ns for file in folder.glob("*")), default=0)
    if (folder, changed) not in _kept:
        opened = load(folder)
        for other in [key for key in _kept if key[0] == folder]:
            del _kept[other]
        _kept[folder, changed] = opened
    return _kept[folder, changed]


def generate(n: int = 1, *, checkpoint: Path | str | None = None, **options: Any) -> Pictures:
    """`Model.generate` of a checkpoint that is opened once: a folder, or one that ships by name."""
    return _model(checkpoint).generate(n, **options)


def complete(
    media: Any,
    keep: float | None = None,
    n: int = 1,
    *,
    checkpoint: Path | str | None = None,
    **options: Any,
) -> Pictures:
    """`Model.complete` of a checkpoint that is opened once."""
    return _model(checkpoint).complete(media, keep, n, **options)


def fill(media: Any, mask: Any, n: int = 1, *, checkpoint: Path | str, **options: Any) -> Pictures:
    """`Model.fill` of a checkpoint that is opened once."""
    return _model(checkpoint).fill(media, mask, n, **options)


def open_coder(folder: Path) -> Tokenizer | VaePrior:
    """The tokenizer of a checkpoint or tokenizer folder, or the `VaePrior` of a VAE's: no model."""
    folder = checkpoint_folder(folder)
    if is_vae(folder):
        from jpeglm.generation.vae import VaePrior

        return VaePrior(folder)
    return Tokenizer.load(folder)


def make_engine(
    checkpoint: Checkpoint,
    engine: str = "cpu",
    precision: str | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> Engine:
    """The engine `cpu` or `torch` over a checkpoint's weights."""
    precision = precision or PRECISION.get(engine, "")
    if engine == "cpu":
        if device not in (None, "cpu"):
            raise InputError(
                f"device is {device!r}, but the cpu engine runs on the processor alone; choose the "
                "engine torch for it"
            )
        from jpeglm.generation.engine_cpu import CpuEngine

        return CpuEngine(checkpoint.config, checkpoint.weights, precision, threads=threads)
    if engine == "torch":
        try:
            import torch

            from jpeglm.generation.engine_cuda import GraphEngine
            from jpeglm.generation.engine_torch import TorchEngine
        except ImportError as error:
            raise InputError(
                f"the torch engine needs torch and transformers; {install('train')}"
            ) from error
        device = device or "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"the device {device!r} cannot be used: {reason}") from error
        # Following the grammar in tables costs a processor more than it saves.
        kind = GraphEngine if device.startswith("cuda") else TorchEngine
        return kind.from_checkpoint(checkpoint.folder, device, precision)
    raise InputError(f"there is no engine {engine!r}; choose cpu or torch")
