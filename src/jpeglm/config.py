"""Settings as frozen dataclasses that check themselves and go to JSON and back.

Every artefact (shard, tokenizer, checkpoint, run folder) stores the settings that made it, so a
setting has one definition, one default and one validation, here. `InputError` is the only
exception that a user is meant to see: one sentence that names the file and what to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

__all__ = [
    "PAPER_JPEG",
    "PAPER_SAMPLING",
    "InputError",
    "JpegConfig",
    "Sampling",
    "Settings",
    "Stopped",
    "StreamError",
]


class InputError(ValueError):
    """Something the user gave is wrong: one sentence with what, in which file, what to do."""

    def __init__(self, message: str) -> None:
        # Other libraries, whose reasons are passed on, write several lines.
        super().__init__(" ".join(message.splitlines()))


class LeftOut(UserWarning):
    """Something of the user's data is not used; the command line shows it as a line."""


class StreamError(InputError):
    """Why a stream is not canonical, and at which of its bytes."""

    def __init__(self, reason: str, place: int) -> None:
        super().__init__(f"{reason}, at byte {place}")
        self.reason, self.place = reason, place


def install(extra: str) -> str:
    """How to get what an extra brings, for the end of an error's sentence."""
    return (
        f"run: pip install 'jpeglm[{extra}]', or in a clone of the repository: "
        f"pip install -c constraints.txt '.[{extra}]'"
    )


class Stopped(Exception):
    """The user stopped the work: one sentence with what is kept and how to go on."""


MAX_SEED = (1 << 63) - 1
"""Seeds go to compiled code as int64."""


def whole(name: str, value: Any, least: int, most: int = MAX_SEED) -> int:
    """The argument `name`, if it is a whole number of that range."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"{name} is {value!r}; it must be a whole number")
    if not least <= int(value) <= most:
        raise InputError(f"{name} is {value}; it must be from {least} to {most}")
    return int(value)


def check_seed(seed: Any) -> int:
    """The seed, if it is one."""
    return whole("seed", seed, 0)


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings in which two differ, in words: `quality is 25, not 50`."""
    return ", ".join(
        f"{name} is {before.get(name, 'not there')}, not {now.get(name, 'there')}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    )


def bounded(
    default: float | None,
    *,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
    above: float | None = None,
) -> Any:
    """A number among settings, with its range; `Settings.check_bounds` demands it. It begins at
    `least` or behind `above`."""
    limits = {"least": least, "most": most, "below": below, "above": above}
    return dataclasses.field(default=default, metadata=limits)


@dataclass(frozen=True)
class Settings:
    """Base of all settings: JSON round trip, and refusal of keys that this version lacks."""

    def check_bounds(self) -> None:
        """InputError unless every number that is `bounded` is of its range and finite."""
        for field in dataclasses.fields(self):
            limits, value = field.metadata, getattr(self, field.name)
            if not limits or value is None:
                continue
            least, most, below = limits["least"], limits["most"], limits["below"]
            above = limits["above"]
            if above is not None:
                words, inside = f"must be above {above} and at most {most}", above < value <= most
            elif most is not None:
                words, inside = f"must be from {least:g} to {most:g}", least <= value <= most
            elif below is not None:
                words, inside = f"must be from {least} to below {below}", least <= value < below
            else:
                words, inside = f"must be at least {least}", least <= value < math.inf
                words += " and finite" if field.type == "float" else ""
            if not inside:
                raise InputError(f"{field.name} is {value}; it {words}")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        unknown = sorted(set(values) - set(cls.names()))
        if unknown:
            raise InputError(
                f"{cls.__name__} has no setting {', '.join(unknown)}; it knows "
                f"{', '.join(sorted(cls.names()))}"
            )
        for field in dataclasses.fields(cls):
            value = values.get(field.name)
            if field.name in values and not fits(value, str(field.type)):
                number = isinstance(value, int | float) and not _small(value)
                need = "finite and below 2^63" if number else field.type
                raise InputError(f"{field.name} is {shorten(value)}; it must be {need}")
        return cls(**values)


_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
    "dict": (dict,),
    "list": (list,),
    "tuple": (list, tuple),
}


def _small(value: float) -> bool:
    """Whether a number is finite and fits into 64 bits."""
    return abs(value) < 2**63


def fits(value: Any, annotation: str) -> bool:
    """Whether a value, out of JSON say, is of a setting's type: `int | None`, `dict[str, Any]`.

    No bool is a number, and every number is finite and fits into 64 bits.
    """
    kinds = [name.split("[")[0] for name in annotation.split(" | ")]
    known = tuple(kind for name in kinds for kind in _KINDS.get(name, (object,)))
    if isinstance(value, bool) and object not in known:
        return bool in known
    if isinstance(value, int | float) and not _small(value):
        return False
    return isinstance(value, known)


def shorten(value: Any, most: int = 60) -> str:
    """A value of the user's in an error: as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def fingerprint(values: dict[str, Any]) -> str:
    """16 hex digits that name a set of settings; equal settings, equal fingerprint."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sampling(Settings):
    """How tokens are drawn; top_k = 0 and top_p = 1 leave the distribution as it is, and so does
    guidance = 1 (`generation.guidance`)."""

    temperature: float = bounded(1.0, least=0.0)
    """1 is the model's own distribution, 0 is greedy."""
    top_k: int = bounded(0, least=0)
    """Sample from the k most probable tokens; 0 is off."""
    top_p: float = bounded(1.0, above=0.0, most=1.0)
    """Sample from the most probable tokens that together reach this probability."""
    min_p: float = bounded(0.0, least=0.0, most=1.0)
    """Sample only tokens at least this fraction as probable as the most probable one; 0 is off."""
    grammar: bool = True
    """Allow only tokens that keep the file valid; without it some files are broken."""
    guidance: float = bounded(1.0, least=0.0, most=1e6)
    """With a label or a text: 1 is the plain model, 0 ignores them, more than 1 exaggerates
    them."""

    def __post_init__(self) -> None:
        self.check_bounds()


PAPER_SAMPLING = {"temperature": 1.0, "top_p": 0.9, "top_k": 40}
"""Of the paper's two settings (arXiv 2408.08459, section 4), each the narrower."""

FITS = ("crop", "top", "pad")
"""Ways to bring a picture of another shape to a codec's: keep its middle, keep its top (the head of
a portrait), or add black."""


def check_fit(fit: str) -> None:
    """InputError unless it is one of `FITS`."""
    if fit not in FITS:
        raise InputError(f"fit is {shorten(fit)}; choose one of {', '.join(FITS)}")


@dataclass(frozen=True)
class JpegConfig(Settings):
    """The JPEG encoder's settings.

    `fit` does not change what a stream means, so it is no part of the codec's fingerprint.
    """

    width: int = 64
    """Pixels."""
    height: int = 64
    """Pixels."""
    quality: int = 25
    """JPEG quality, 1 to 100."""
    subsampling: str = "4:2:0"
    """4:2:0, 4:2:2, 4:4:4 or gray."""
    restart_interval: int = 0
    """MCUs between restart markers; 0 is none."""
    fit: str = "crop"
    """`crop` (keep the middle), `top` (keep the top) or `pad` (with black)."""

    MCU: ClassVar[dict[str, tuple[int, int]]] = {
        "4:2:0": (16, 16),
        "4:2:2": (16, 8),
        "4:4:4": (8, 8),
        "gray": (8, 8),
    }
    MAX_PIXELS: ClassVar[int] = 200_000_000

    def __post_init__(self) -> None:
        if self.subsampling not in self.MCU:
            raise InputError(
                f"subsampling is {self.subsampling!r}; choose one of {', '.join(self.MCU)}"
            )
        mcu_width, mcu_height = self.MCU[self.subsampling]
        for name, value, unit in (
            ("width", self.width, mcu_width),
            ("height", self.height, mcu_height),
        ):
            if not 0 < value <= 65535 or value % unit:
                raise InputError(
                    f"{name} is {value}; at {self.subsampling} it must be a multiple of {unit} "
                    f"from {unit} to {65535 // unit * unit}"
                )
        if self.width * self.height > self.MAX_PIXELS:
            raise InputError(
                f"width and height are {self.width} × {self.height}; that is more than "
                f"{self.MAX_PIXELS // 1_000_000} megapixels"
            )
        if not 1 <= self.quality <= 100:
            raise InputError(f"quality is {self.quality}; it must be from 1 to 100")
        if not 0 <= self.restart_interval <= 65535:
            raise InputError(
                f"restart_interval is {self.restart_interval}; it must be from 0 (no markers) "
                "to 65535"
            )
        check_fit(self.fit)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of MCUs, whose order is that of lines of text."""
        mcu_width, mcu_height = self.MCU[self.subsampling]
        return self.height // mcu_height, self.width // mcu_width

    @property
    def mcus(self) -> int:
        """MCUs in a picture."""
        rows, columns = self.grid
        return rows * columns


PAPER_JPEG = JpegConfig(256, 256, 25, "4:2:0", restart_interval=1)
"""The paper's setting (arXiv 2408.08459, section 3.1)."""
