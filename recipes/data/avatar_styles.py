"""What each of four of DiceBear's styles can draw, in words that are true to the eye.

DiceBear numbers its parts ("short07") or names them after a film; here the parts that look alike at
64 pixels stand under one word, and parts that no one would call by a word, that hide a neighbour or
drown at this size are left out. Words came from looking at sheets of every part. Colours are one
hex a word, our own: DiceBear's palettes have browns that only differ beside each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Options = dict[str, Any]
Words = dict[str, tuple[Options, ...]]
"""Word → what DiceBear is told, one of several parts that the word fits."""

PACKAGES = {
    "adventurer": "@dicebear/adventurer@9.4.3",
    "persona": "@dicebear/personas@9.4.3",
    "toon": "@dicebear/big-smile@9.4.3",
    "avataaar": "@dicebear/avataaars@9.4.3",
}
"""Style, as captions call it → npm package."""
CORE = "@dicebear/core@9.4.3"
LICENCES = {
    "adventurer": "Adventurer by Lisa Wischofsky, CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/)",
    "persona": "Personas by Draftbit, CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)",
    "toon": "Custom Avatar (DiceBear's Big Smile) by Ashley Seo, CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/)",
    "avataaar": "Avataaars by Pablo Stanley, free for personal and commercial use "
    "(https://avataaars.com/)",
}

SKIN = {"light": "f5d5b0", "tan": "d9a066", "brown": "a5652f", "dark": "5a3320"}
HAIR = {
    "black": "1b1b1f",
    "brown": "7e4a24",
    "blond": "ecc95c",
    "red": "b42a1a",
    "orange": "e0771c",
    "grey": "a9a9ae",
    "pink": "f08cc0",
    "blue": "3f6fd8",
    "green": "3eac4c",
    "purple": "7a3fb0",
}
CLOTH = {
    "red": "d93c3c",
    "orange": "f08a3c",
    "yellow": "f2cb3c",
    "green": "4fae58",
    "blue": "4068e0",
    "purple": "7d4fc8",
    "pink": "f27ba8",
    "black": "2a2a32",
    "grey": "96969e",
}
BACKGROUND = {
    "white": "ffffff",
    "grey": "c4c8cc",
    "blue": "8ecbf5",
    "green": "9fe0a0",
    "yellow": "ffe27a",
    "pink": "ffb3c8",
    "purple": "c3a6f5",
    "orange": "ffb870",
}


@dataclass(frozen=True)
class Style:
    """`words`: attribute → word → parts. `colours`: attribute → DiceBear's options that take it and
    the hex of each word. `free`: parts that no caption names. `base`: what holds unless a part
    says otherwise. `coloured_beard`: whether facial hair has the colour of the hair. `hides`:
    (attribute, word, attribute behind it)."""

    base: Options
    free: tuple[tuple[Options, ...], ...]
    words: dict[str, Words]
    colours: dict[str, tuple[tuple[str, ...], dict[str, str]]]
    coloured_beard: bool = False
    hides: tuple[tuple[str, str, str], ...] = (("glasses", "sunglasses", "eyes"),)


def each(key: str, parts: str, **more: Any) -> tuple[Options, ...]:
    """One option set for each of the parts."""
    return tuple({key: [part], **more} for part in parts.split())


NOTHING: tuple[Options, ...] = ({},)
_SKIN = (("skinColor",), SKIN)
_HAIR = (("hairColor",), HAIR)
_BACKGROUND = (("backgroundColor",), BACKGROUND)


def _adventurer() -> Style:
    def variants(key: str, numbers: str, **more: Any) -> tuple[Options, ...]:
        return each(key, " ".join(f"variant{number}" for number in numbers.split()), **more)

    return Style(
        base={
            "glassesProbability": 0,
            "earringsProbability": 0,
            "featuresProbability": 0,
            "eyes": ["variant26"],
            "hairColor": ["000000"],
        },
        free=(variants("eyebrows", "03 07 10 12 13 14"),),
        words={
            "hair": {
                "short hair": each("hair", "short01 short02 short10 short11 short14"),
                "curly hair": each("hair", "short03 short17 short18"),
                "spiky hair": each("hair", "short16"),
                "mohawk": each("hair", "short15"),
                "bob": each("hair", "long01 long05 long21"),
                "long hair": each("hair", "long07 long09"),
                "long wavy hair": each("hair", "long06 long17"),
                "bun": each("hair", "long10 long11 short05"),
                "two buns": each("hair", "long13 long23"),
                "pigtails": each("hair", "long14 long15"),
                "braid": each("hair", "long16"),
                "ponytail": each("hair", "long19"),
                "hair with flowers": each("hair", "long03 long08 long18"),
                "bald": each("hair", "short01", hairProbability=0),
            },
            "glasses": {
                "none": NOTHING,
                "glasses": variants("glasses", "02 04", glassesProbability=100),
                "sunglasses": variants("glasses", "01", glassesProbability=100),
            },
            "facial_hair": {
                "none": NOTHING,
                "moustache": each("features", "mustache", featuresProbability=100),
            },
            "eyes": {
                "open": variants("eyes", "01 02 03 24 25 26"),
                "closed": variants("eyes", "19 20"),
                "winking": variants("eyes", "21 22"),
            },
            "mouth": {
                "smiling": variants("mouth", "01 25 26 27 30"),
                "grinning": variants("mouth", "22 23"),
                "frowning": variants("mouth", "14"),
                "serious": variants("mouth", "09"),
                "shouting": variants("mouth", "15 24"),
                "tongue out": variants("mouth", "16"),
            },
        },
        colours={"hair_color": _HAIR, "skin": _SKIN, "background": _BACKGROUND},
    )


def _persona() -> Style:
    # A veil of white lies over the face: skin is given darker, so that the face has the tone.
    skin = {"light": "eeb98f", "tan": "c4793c", "brown": "87400f", "dark": "421500"}
    return Style(
        base={"facialHairProbability": 0, "eyes": ["open"], "hairColor": ["000000"]},
        free=(each("nose", "mediumRound smallRound"),),
        words={
            "hat": {
                "none": NOTHING,
                "red beanie": each("hair", "beanie"),
                "orange cap": each("hair", "cap"),
            },
            "hair": {
                "short hair": each("hair", "shortCombover shortComboverChops"),
                "bob": each("hair", "bobCut bobBangs"),
                "long hair": each("hair", "long extraLong"),
                "bun": each("hair", "curlyBun straightBun"),
                "pigtails": each("hair", "pigtails"),
                "bald": each("hair", "bald"),
            },
            "glasses": {
                "none": NOTHING,
                "glasses": each("eyes", "glasses"),
                "sunglasses": each("eyes", "sunglasses"),
            },
            "facial_hair": {
                "none": NOTHING,
                "beard": each("facialHair", "beardMustache", facialHairProbability=100),
                "goatee": each("facialHair", "goatee", facialHairProbability=100),
                "moustache": each("facialHair", "pyramid walrus", facialHairProbability=100),
            },
            "eyes": {
                "open": each("eyes", "open"),
                "closed": each("eyes", "happy sleep"),
            },
            "mouth": {
                "smiling": each("mouth", "smile"),
                "grinning": each("mouth", "bigSmile"),
                "frowning": each("mouth", "frown"),
                "surprised": each("mouth", "surprise"),
                "pacifier": each("mouth", "pacifier"),
            },
            "clothes": {
                "shirt": each("body", "rounded squared"),
                "checkered shirt": each("body", "checkered"),
            },
        },
        colours={
            "hair_color": _HAIR,
            "skin": (("skinColor",), skin),
            "clothes_color": (("clothingColor",), CLOTH),
            "background": _BACKGROUND,
        },
        coloured_beard=True,
        hides=(("facial_hair", "beard", "mouth"),),
    )


def _toon() -> Style:
    def worn(parts: str) -> tuple[Options, ...]:
        return each("accessories", parts, accessoriesProbability=100)

    return Style(
        base={"accessoriesProbability": 0, "eyes": ["normal"], "mouth": ["openedSmile"]},
        free=(),
        words={
            "hair": {
                "short hair": each("hair", "shortHair shavedHead"),
                "curly hair": each("hair", "curlyShortHair"),
                "long hair": each("hair", "bangs straightHair"),
                "long wavy hair": each("hair", "wavyBob"),
                "bob": each("hair", "curlyBob"),
                "bun": each("hair", "bunHair froBun"),
                "braids": each("hair", "braids"),
                "bowl cut": each("hair", "bowlCutHair"),
            },
            "glasses": {
                "none": NOTHING,
                "glasses": worn("glasses"),
                "sunglasses": worn("sunglasses"),
            },
            "facial_hair": {"none": NOTHING, "moustache": worn("mustache")},
            "extra": {
                "none": NOTHING,
                "cat ears": worn("catEars"),
                "clown nose": worn("clownNose"),
                "face mask": worn("faceMask"),
            },
            "eyes": {
                "open": each("eyes", "normal"),
                "closed": each("eyes", "sleepy"),
                "starry": each("eyes", "starstruck"),
            },
            "mouth": {
                "smiling": each("mouth", "openedSmile gapSmile"),
                "grinning": each("mouth", "teethSmile awkwardSmile"),
                "serious": each("mouth", "unimpressed"),
            },
        },
        colours={"hair_color": _HAIR, "skin": _SKIN, "background": _BACKGROUND},
        hides=(
            ("glasses", "sunglasses", "eyes"),
            ("extra", "face mask", "mouth"),
            ("facial_hair", "moustache", "mouth"),
        ),
    )


def _avataaar() -> Style:
    def worn(parts: str) -> tuple[Options, ...]:
        return each("accessories", parts, accessoriesProbability=100)

    def grown(parts: str) -> tuple[Options, ...]:
        return each("facialHair", parts, facialHairProbability=100)

    return Style(
        base={
            "accessoriesProbability": 0,
            "accessoriesColor": ["262e33"],
            "facialHairProbability": 0,
            "topProbability": 100,
            "eyes": ["default"],
            "hairColor": ["000000"],
            "facialHairColor": ["000000"],
            "hatColor": ["000000"],
            "clothing": ["shirtCrewNeck"],
            "clothesColor": ["96969e"],
        },
        free=(each("eyebrows", "default defaultNatural flatNatural"),),
        words={
            "hat": {
                "none": NOTHING,
                "sun hat": each("top", "hat"),
                "hijab": each("top", "hijab"),
                "turban": each("top", "turban"),
                "winter hat": each("top", "winterHat1 winterHat02 winterHat03"),
            },
            "hair": {
                "short hair": each(
                    "top", "shortFlat shortRound shortWaved theCaesar theCaesarAndSidePart shaggy"
                ),
                "curly hair": each("top", "curly"),
                "afro": each("top", "fro"),
                "dreadlocks": each("top", "dreads"),
                "bob": each("top", "bob miaWallace longButNotTooLong"),
                "long hair": each("top", "straight01 straight02 straightAndStrand"),
                "long wavy hair": each("top", "curvy bigHair"),
                "bun": each("top", "bun"),
                "hair with flowers": each("top", "frida"),
                "bald": each("top", "shortFlat", topProbability=0),
            },
            "glasses": {
                "none": NOTHING,
                "glasses": worn("prescription01 prescription02 round"),
                "sunglasses": worn("kurt sunglasses wayfarers"),
            },
            "facial_hair": {
                "none": NOTHING,
                "beard": grown("beardLight beardMedium beardMajestic"),
                "moustache": grown("moustacheFancy moustacheMagnum"),
            },
            "eyes": {
                "open": each("eyes", "default"),
                "closed": each("eyes", "closed"),
                "heart-shaped": each("eyes", "hearts"),
                "wide open": each("eyes", "surprised"),
            },
            "mouth": {
                "smiling": each("mouth", "smile"),
                "grinning": each("mouth", "grimace"),
                "frowning": each("mouth", "concerned"),
                "serious": each("mouth", "serious"),
                "shouting": each("mouth", "screamOpen"),
                "tongue out": each("mouth", "tongue"),
            },
            "clothes": {
                "shirt": each("clothing", "shirtCrewNeck shirtScoopNeck shirtVNeck"),
                "hoodie": each("clothing", "hoodie"),
                "blazer": each("clothing", "blazerAndShirt blazerAndSweater"),
                "overalls": each("clothing", "overall"),
            },
        },
        colours={
            "hair_color": (("hairColor", "facialHairColor"), HAIR),
            "skin": _SKIN,
            "hat_color": (("hatColor",), CLOTH),
            "clothes_color": (("clothesColor",), CLOTH),
            "background": _BACKGROUND,
        },
        coloured_beard=True,
        hides=(
            ("glasses", "sunglasses", "eyes"),
            ("hat", "hijab", "clothes"),
            ("hat", "hijab", "clothes_color"),
            ("hat", "hijab", "facial_hair"),
        ),
    )


STYLES = {
    "adventurer": _adventurer(),
    "persona": _persona(),
    "toon": _toon(),
    "avataaar": _avataaar(),
}
