"""Which codec prepares the data: by name and settings, like a checkpoint's, or a learned one.

    codec = choose_codec(CodecChoice(codec="avc"), {"qp": 30}, Path("films"), Path("shards"))

A learned codec comes out of its folder. A palette (`pixels`) is learnt here, from the pictures that
are about to be prepared; a run that goes on takes the one that it learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jpeglm.codecs import CODECS, Codec, make_codec, open_codec
from jpeglm.codecs.learned import WEIGHTS
from jpeglm.codecs.pixels import PixelsCodec, PixelsConfig, learn_palette
from jpeglm.config import PAPER_JPEG, InputError, Settings
from jpeglm.data.arrays import load_images, to_images
from jpeglm.data.settings import PrepareConfig
from jpeglm.folders import DATA, record_of
from jpeglm.places import checkpoint_folder

PRESETS: dict[str, dict[str, Any]] = {
    "jpeg": PAPER_JPEG.to_dict(),
    "avc": {"encoder": "paper"},
}
"""The settings of the preset `paper`, of each codec that has one."""
PALETTE_PICTURES = 2000
"""From which a palette is learnt."""


@dataclass(frozen=True)
class CodecChoice(Settings):
    """Where the codec is from."""

    codec: str | None = None
    """jpeg (the default); avc, clips as H.264; vq, the codes of a VQ-VAE (needs --codec-dir);
    pixels, a learnt palette."""
    like: Path | None = None
    """Take the codec and its settings from a checkpoint (a folder, or a shipped one's name), a
    tokenizer, or prepared data."""
    codec_dir: Path | None = None
    """Codec folder: of train-vqvae, a diffusers VQModel, or data prepared with pixels."""
    preset: str | None = None
    """paper: 256 px, quality 25, 4:2:0, a marker every MCU; avc: a slice for each macroblock, three
    references."""


def check_preset(preset: str | None) -> None:
    """InputError unless there is this preset."""
    if preset not in (None, "paper"):
        raise InputError(f"--preset is {preset!r}; there is one preset, paper")


def preset_codec(name: str, preset: str | None, settings: dict[str, Any]) -> Codec:
    """The codec `jpeg` or `avc` with its preset's settings, some replaced."""
    check_preset(preset)
    return make_codec({"codec": name, **(PRESETS[name] if preset else {}), **settings})


def choose_codec(
    choice: CodecChoice,
    settings: dict[str, Any],
    source: Path,
    out: Path,
    config: PrepareConfig,
    say: Callable[[str], None],
) -> Codec:
    """The codec for the data `source`, prepared into `out` as `config` says.

    settings: those of the codec's that were given. InputError where one has no place.
    """
    shared = None if choice.like is None else _like(choice.like, choice, settings)
    name = shared.name if shared else choice.codec or "jpeg"
    if name not in CODECS:
        raise InputError(f"--codec is {name!r}; choose one of {', '.join(CODECS)}")
    for owner, (kind, _) in CODECS.items():
        own = {field.name for field in fields(kind)}
        known = {field.name for field in fields(CODECS[name][0])}
        for option in settings.keys() & own - known:
            raise InputError(f"{_option(option)} belongs to the codec {owner}, not to {name}")
    if config.clips and name != "avc":
        raise InputError(f"--clips belongs to the codec avc, not to {name}")
    if choice.preset is not None and name not in PRESETS:
        raise InputError(f"--preset belongs to the codecs {' and '.join(PRESETS)}, not to {name}")
    if shared is not None:
        return shared
    if name in PRESETS and choice.codec_dir is None:
        return preset_codec(name, choice.preset, settings)
    folder = choice.codec_dir
    if folder is None and (out / WEIGHTS).exists():
        folder = out  # a run that goes on
    if folder is not None:
        return _out_of(folder, name, settings)
    if name == "vq":
        raise InputError("--codec vq needs --codec-dir, the model folder of jpeglm train-vqvae")
    wanted = PixelsConfig.from_dict(settings)
    say("learning the palette")
    size = (wanted.width, wanted.height)
    found = load_images(source, *size, config, "train", limit=PALETTE_PICTURES)
    palette = learn_palette(to_images(found.pixels), *size, wanted.colors)
    return PixelsCodec(PixelsConfig(*size, len(palette), wanted.fit), palette)


def _like(like: Path, choice: CodecChoice, settings: dict[str, Any]) -> Codec:
    """The codec of a checkpoint, a tokenizer or prepared data, whose settings are all taken; how
    pictures are fitted into them may differ."""
    given = {"--codec-dir": choice.codec_dir, "--preset": choice.preset}
    said = [option for option, value in given.items() if value is not None]
    said += [_option(name) for name in settings if name != "fit"]
    if said:
        raise InputError(f"{said[0]} cannot be given with --like, which sets it")
    folder = like if record_of(like, DATA) is not None else checkpoint_folder(like)
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {like} and no shipped checkpoint of that name; --like takes "
            "a checkpoint, a tokenizer or prepared data"
        )
    codec = open_codec(folder, fit=settings.get("fit"))
    if choice.codec not in (None, codec.name):
        raise InputError(
            f"--codec is {choice.codec}, but {like} has the codec {codec.name}; leave one out"
        )
    return codec


def _out_of(folder: Path, name: str, settings: dict[str, Any]) -> Codec:
    """The codec of a codec's folder, at another size if one is given."""
    free = ("width", "height", "fit")
    for option in settings.keys() - free:
        raise InputError(f"{_option(option)} cannot be given with --codec-dir, which sets it")
    folder = checkpoint_folder(folder)
    codec = open_codec(folder, **settings)
    if codec.name != name:
        raise InputError(f"{folder} holds a codec {codec.name}, not {name}; give its --codec")
    return codec


def _option(field: str) -> str:
    return "--size" if field in ("width", "height") else f"--{field.replace('_', '-')}"
