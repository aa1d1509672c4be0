"""The studies of token_study.py: which forms of tokens, pictures and models each one compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shards:
    """made: the recipe that makes them, or how `prepare` makes them of data/photos; flops: what a
    run on them costs unless its form says otherwise."""

    made: str
    flops: float


SHARDS = {
    "photos64": Shards("recipes/photos.py", 2.5e13),
    "photos64-unmarked": Shards("--crops 24 --restart-interval 0", 2.5e13),
    "photos32": Shards("--size 32 --crops 24 --restart-interval 1", 1e13),
    "motion-64x48": Shards("recipes/clips.py", 4e13),
}


@dataclass(frozen=True)
class Form:
    """Tokens: an alphabet, and the size of the vocabulary with BOS and EOS; 266 leaves both
    alphabets of JPEG, 264 symbols each, without merges. shards: a name of SHARDS. flops: of a run,
    0 for what is usual on its shards. shape: width and layers in place of the preset's."""

    alphabet: str
    vocabulary: int
    shards: str = "photos64"
    preset: str = "2m"
    flops: float = 0
    shape: tuple[int, int] | None = None

    @property
    def model(self) -> dict[str, int]:
        """The keys of the Llama configuration that `shape` replaces: heads of 64, feed-forward
        widths as the presets have them."""
        if self.shape is None:
            return {}
        width, layers = self.shape
        return {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // 64,
            "intermediate_size": 64 * -(-width * 8 // (3 * 64)),
        }

    @property
    def tokens(self) -> str:
        return f"{self.alphabet}-{self.vocabulary}"

    @property
    def name(self) -> str:
        size = "" if self.preset == "2m" else f"-{self.preset}"
        long = f"-{self.flops:.0e}".replace("+", "") if self.flops else ""
        shape = f"-{self.shape[0]}x{self.shape[1]}" if self.shape else ""
        return f"{self.tokens}{size}{shape}{long}"

    @property
    def budget(self) -> float:
        return self.flops or SHARDS[self.shards].flops

    @property
    def data(self) -> Path:
        return Path("data") / self.shards

    @property
    def home(self) -> Path:
        return Path("runs/tokens") / self.shards


@dataclass(frozen=True)
class Study:
    """unit: what a stream is; varied: the property of forms to name them by; law: whether all have
    the same tokens, so that one law of tokens seen may fit them."""

    unit: str
    forms: tuple[Form, ...]
    varied: str = "name"
    law: bool = False

    def label(self, form: Form) -> str:
        return form.name if self.varied == "name" else f"{form.name} {getattr(form, self.varied)}"


SYMBOLS = "jpeg-block-symbols"
LONG = 1e14
"""FLOPs of the long runs at 64 px, four times the usual."""
STUDIES = {
    "photos": Study(
        "picture",
        (
            Form(SYMBOLS, 1024),
            Form("bytes", 320),
            Form("jpeg-coarse-symbols", 1024),
            Form(SYMBOLS, 512),
            Form(SYMBOLS, 2048),
            Form("bytes", 1024),
            Form(SYMBOLS, 266),
            Form("bytes", 266),
        ),
    ),
    "restart": Study(
        "picture",
        tuple(
            Form(*tokens, shards)
            for tokens in ((SYMBOLS, 1024), ("bytes", 320))
            for shards in ("photos64", "photos64-unmarked")
        ),
        "shards",
    ),
    "small": Study(
        "picture",
        (
            Form(SYMBOLS, 1024, "photos32"),
            Form("bytes", 320, "photos32"),
            Form(SYMBOLS, 512, "photos32"),
        ),
    ),
    "wider": Study(
        "picture",
        (
            Form(SYMBOLS, 1024, preset="5m"),
            Form("bytes", 320, preset="5m"),
            Form(SYMBOLS, 512, preset="5m"),
        ),
    ),
    "scaling": Study(
        "picture",
        tuple(Form(SYMBOLS, 1024, preset=size) for size in ("1m", "2m", "3m", "5m"))
        + tuple(Form(SYMBOLS, 1024, preset=size, flops=LONG) for size in ("2m", "1m", "3m")),
        law=True,
    ),
    "shape": Study(
        "picture",
        (
            Form(SYMBOLS, 1024),
            Form(SYMBOLS, 1024, shape=(256, 2)),
            Form(SYMBOLS, 1024, shape=(128, 9)),
        ),
    ),
    "longer": Study(
        "picture",
        (
            Form(SYMBOLS, 1024, flops=LONG),
            Form("bytes", 320, flops=LONG),
        ),
    ),
    "clips": Study(
        "clip",
        tuple(
            Form(*tokens, "motion-64x48")
            for tokens in (("avc-placed-symbols", 1024), ("avc-symbols", 1024), ("bytes", 320))
        ),
    ),
}
