"""Captions of avatars: what their attributes say, worded in several ways.

Only what is visible is said, and what is absent (glasses, a beard) is left unsaid. A quarter of the
captions of the training pictures leave out more, so that a short prompt is no strange one.
"""

from __future__ import annotations

from random import Random

Attributes = dict[str, str]

HAIR = {
    "short hair": "short {} hair",
    "curly hair": "curly {} hair",
    "spiky hair": "spiky {} hair",
    "long hair": "long {} hair",
    "long wavy hair": "long wavy {} hair",
    "hair with flowers": "{} hair with flowers",
    "mohawk": "{} mohawk",
    "bob": "{} bob",
    "bowl cut": "{} bowl cut",
    "afro": "{} afro",
    "bun": "{} hair in a bun",
    "two buns": "{} hair in two buns",
    "pigtails": "{} pigtails",
    "ponytail": "{} ponytail",
    "braid": "{} braid",
    "braids": "{} braids",
    "dreadlocks": "{} dreadlocks",
    "bald": "bald",
}
SAID = {
    "skin": {
        "light": ("light skin", "fair skin"),
        "tan": ("tan skin", "tanned skin"),
        "brown": ("brown skin",),
        "dark": ("dark skin",),
    },
    "mouth": {
        "smiling": ("smiling", "with a smile"),
        "grinning": ("grinning", "with a grin"),
        "frowning": ("frowning", "with a frown"),
        "serious": ("serious", "with a straight mouth"),
        "shouting": ("shouting", "mouth wide open"),
        "tongue out": ("tongue out", "sticking out the tongue"),
        "surprised": ("surprised", "with a round open mouth"),
        "pacifier": ("with a pacifier", "sucking a pacifier"),
    },
    "eyes": {
        "closed": ("eyes closed", "with closed eyes"),
        "winking": ("winking", "with a wink"),
        "starry": ("starry eyes", "with stars in the eyes"),
        "heart-shaped": ("heart eyes", "with hearts for eyes"),
        "wide open": ("wide eyes", "eyes wide open"),
    },
    "facial_hair": {"moustache": ("moustache", "mustache")},
}
"""Attribute → word → ways to say it, where it is not the word alone."""
SPELT = {"blond": ("blond", "blonde"), "grey": ("grey", "gray")}
UNSAID = {"none", "open"}
UNCOUNTED = {"hair", "bun", "buns", "flowers", "pigtails", "braids", "dreadlocks", "skin",
             "glasses", "sunglasses", "ears", "overalls"}  # fmt: skip
"""Last words of phrases that take no article."""
PARTIAL = 0.25
"""Share of captions that leave out what is visible."""


def article(phrase: str) -> str:
    """The phrase as it stands in a sentence."""
    if phrase.split()[-1] in UNCOUNTED:
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def phrases(attributes: Attributes, rng: Random) -> dict[str, str]:
    """Attribute → what a list of words would say of it; what is absent has none."""

    def colour(name: str) -> str:
        word = attributes[name]
        return rng.choice(SPELT.get(word, (word,)))

    said = {}
    for name, word in attributes.items():
        if word in UNSAID or name in ("style", "hair_color", "hat_color", "clothes_color"):
            continue
        if name == "hair":
            said[name] = word if word == "bald" else HAIR[word].format(colour("hair_color"))
        elif name == "background":
            said[name] = f"{colour('background')} background"
        elif f"{name}_color" in attributes:
            said[name] = f"{colour(f'{name}_color')} {word}"
        else:
            said[name] = rng.choice(SAID.get(name, {}).get(word, (word,)))
    hairless = attributes.get("hair", "bald") == "bald"
    if hairless and "hair_color" in attributes:  # nothing but the beard tells it
        said["facial_hair"] = f"{colour('hair_color')} {said['facial_hair']}"
    return said


def caption(attributes: Attributes, rng: Random, whole: bool = True) -> str:
    """One of several wordings; not `whole`: a quarter leave out about half."""
    said = phrases(attributes, rng)
    if not whole and rng.random() < PARTIAL:
        kept = [name for name in said if rng.random() < 0.5] or [rng.choice(list(said))]
        said = {name: said[name] for name in kept}
    style = attributes["style"]
    form = rng.choice(("list", "list", "sentence", "sentence", "portrait"))
    if form == "sentence":
        return _sentence(style, said)
    words = list(said.values())
    rng.shuffle(words)
    if form == "list":
        return ", ".join((style, *words))
    return f"portrait of {article(f'{style} character')}: {', '.join(words)}"


def _sentence(style: str, said: dict[str, str]) -> str:
    """«an adventurer character with short red hair and glasses, smiling, on a blue background»"""
    having = [said[n] for n in ("hair", "skin", "facial_hair", "glasses", "extra") if n in said]
    having = [article(phrase) for phrase in having if phrase != "bald"]
    out = article(f"{'bald ' if said.get('hair') == 'bald' else ''}{style} character")
    if having:
        most = ", ".join(having[:-1])
        out += f" with {most} and {having[-1]}" if most else f" with {having[-1]}"
    worn = [article(said[name]) for name in ("hat", "clothes") if name in said]
    out += f", wearing {' and '.join(worn)}" if worn else ""
    for name in ("eyes", "mouth"):
        out += f", {said[name]}" if name in said else ""
    return out + (f", on {article(said['background'])}" if "background" in said else "")
