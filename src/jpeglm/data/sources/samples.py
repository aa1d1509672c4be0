"""Which members of a tar are one sample, which of them is its picture, its label, its caption.

WebDataset's convention: members of one key are one sample, `a/7.jpg`, `a/7.cls`, `a/7.txt`; the
key ends at the first dot of the name. Beyond it, names with more dots are read as people mean them.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jpeglm.data.sources.base import FILMS
from jpeglm.data.sources.captions import ALONE

IMAGE_FIELDS = ("image", "img", "photo", "picture", "rgb")
FIRST_OF_SAMPLE = (*FILMS, ".jpg", ".jpeg", ".webp", ".avif", ".heic", ".png")
"""Which of several images of a sample is the picture: masks and depths are never JPEG."""


@dataclass(frozen=True)
class Member:
    """A picture inside a tar. pieces: (place in the tar, bytes, place in the picture), more than
    one where the file is sparse; label: what its .cls file holds; number: which of those that bear
    its name; caption: what its .txt file holds."""

    name: str
    size: int
    pieces: tuple[tuple[int, int, int], ...]
    label: bytes | None
    number: int
    caption: bytes | str | None = None

    @property
    def offset(self) -> int:
        return self.pieces[0][0] if self.pieces else 0


class Name(NamedTuple):
    """A member's name in parts: `v1/photo.1.jpg` is key v1/photo, middle 1, end .jpg; `stem` is all
    but the end. Names of different archives, or that come again, are of different `run`s."""

    run: int
    key: str
    middle: str
    end: str

    @property
    def stem(self) -> str:
        return f"{self.key}.{self.middle}" if self.middle else self.key

    @property
    def field(self) -> str:
        """What WebDataset calls the column: all behind the key."""
        return f"{self.middle}{self.end}" if self.middle else self.end[1:]

    @property
    def numbered(self) -> bool:
        """Whether a dot belongs to a number (photo.1.jpg, v1.0_a.jpg) and parts no field off."""
        decimal = self.key[-1:].isdigit() and self.middle[:1].isdigit()
        return decimal or (
            bool(self.middle) and all(c.isdigit() or c in "._-" for c in self.middle)
        )


def parts_of(name: str, run: int) -> Name:
    folder, base = posixpath.split(posixpath.normpath(name))
    stem, end = posixpath.splitext(base)
    first, _, middle = stem.partition(".")
    return Name(run, posixpath.join(folder, first), middle, end.lower())


@dataclass
class Listing:
    """What a walk through a tar finds; all but pictures, labels and captions is counted in
    `passed`."""

    pictures: list[tuple[Name, Member]] = field(default_factory=list)
    labels: dict[tuple[int, str], bytes] = field(default_factory=dict)
    captions: dict[tuple[int, str], bytes] = field(default_factory=dict)
    stems: set[tuple[int, str]] = field(default_factory=set)
    """Of the files that are no pictures."""
    passed: list[str] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)


def choose(listing: Listing, column: str | None) -> tuple[list[Member], list[tuple[str, str]]]:
    """The pictures with their labels and captions, one of each sample; and (name, reason) of
    samples that hold several images of which none can be told to be the picture.

    A name with more than one dot is an image of its key's sample (`7.seg.png` beside `7.jpg` or
    `7.cls`, or images of that name under two keys); where nothing else bears the key, or where only
    digits stand between the dots (`photo.1.jpg`) or another file bears its whole name
    (`7.left.cls`), it is a picture of its own. The picture of a
    sample is the image whose field is `column`; by default the one without a field of its own, of
    `7.jpg` and `7.png` the JPEG, else the one called image.
    """
    plain = listing.stems | {(n.run, n.key) for n, _ in listing.pictures if not n.middle}
    holders: dict[str, set[tuple[int, str]]] = {}
    for name, _ in listing.pictures:
        if name.middle and not name.numbered:
            holders.setdefault(name.field, set()).add((name.run, name.key))
    samples: dict[tuple[int, str], list[tuple[Name, Member]]] = {}
    for name, member in listing.pictures:
        shared = (name.run, name.key) in plain or len(holders.get(name.field, ())) > 1
        sidecar = (name.run, name.stem) in listing.stems
        apart = name.middle and (name.numbered or sidecar or not shared)
        samples.setdefault((name.run, name.stem if apart else name.key), []).append((name, member))
    chosen, refused = [], []
    label_of, caption_of = (_beside(listing, texts) for texts in (listing.labels, listing.captions))
    told: set[tuple[int, str] | None] = set()
    for images in samples.values():
        picked = _picture(images, column)
        if picked is None and column is None:
            fields = ", ".join(name.field for name, _ in images)
            reason = f"the sample holds several images ({fields}); choose one with --column"
            refused.append((images[0][1].name, reason))
        for name, member in images:
            if picked is not None and member is picked[1]:
                label, caption = label_of(name), caption_of(name)
                told.add(caption)
                chosen.append(
                    replace(
                        member,
                        label=listing.labels[label] if label else None,
                        caption=listing.captions[caption] if caption else None,
                    )
                )
            elif picked is not None or column is not None:
                listing.passed.append("." + name.field)
    listing.passed += [ALONE] * len(listing.captions.keys() - told)
    return chosen, refused


def _picture(images: list[tuple[Name, Member]], column: str | None) -> tuple[Name, Member] | None:
    if column is not None:
        wanted = column.lower().removeprefix(".")
        ends = [pair for pair in images if wanted in (pair[0].field.lower(), pair[0].end[1:])]
        exact = [pair for pair in ends if pair[0].field.lower() == wanted]
        found = exact or ends
        return found[0] if found else None
    plain = [pair for pair in images if not pair[0].middle]
    if len(images) == 1 or len(plain) == 1:
        return (plain or images)[0]
    if plain:
        order = {end: place for place, end in enumerate(FIRST_OF_SAMPLE)}
        return min(plain, key=lambda pair: order.get(pair[0].end, len(order)))
    named = [pair for pair in images if pair[0].middle.lower() in IMAGE_FIELDS]
    return named[0] if len(named) == 1 else None


def _beside(
    listing: Listing, beside: dict[tuple[int, str], bytes]
) -> Callable[[Name], tuple[int, str] | None]:
    """What finds a picture its label or caption in `beside`: the file of its own name, else that of
    its key; of one in another archive only if there is neither a second such file nor a second such
    picture."""
    places: dict[str, list[tuple[int, str]]] = {}
    for place in beside:
        places.setdefault(place[1], []).append(place)
    pictures = Counter(name.stem for name, _ in listing.pictures)

    def find(name: Name) -> tuple[int, str] | None:
        for stem in (name.stem, name.key):
            if (name.run, stem) in beside:
                return name.run, stem
        elsewhere = places.get(name.stem, [])
        return elsewhere[0] if len(elsewhere) == pictures[name.stem] == 1 else None

    return find
