"""What an emoji is called: CLDR's short name and keywords, by its code or by a set's own name.

Sets name their files in their own ways; all are brought to one Unicode sequence, without the
variation selector FE0F that some write and some do not. A `concept` is what stays of a sequence
without skin tone, gender and direction: a split by it has no nearly equal pictures on both sides.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

PACKAGE = "emojibase-data@17.0.0"
"""MIT; its names and keywords are CLDR's (Unicode licence)."""
UNICODE = "emoji-datasource-google@16.0.0"
"""Has the characters' Unicode names."""
COMPONENT = 2
"""Group of the skin tones by themselves; letters for flags have no group."""
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
SKIN = {f"1F3F{letter}": tone for letter, tone in zip("BCDEF", TONES)}
PEOPLE = {"1F468": "1F9D1", "1F469": "1F9D1", "1F474": "1F9D3", "1F475": "1F9D3",
          "1F466": "1F9D2", "1F467": "1F9D2"}  # fmt: skip
"""A man, a woman → a person; the old and the young likewise."""
MARKS = {"2640", "2642", "27A1"}
"""Woman, man, and facing right, each behind a joiner."""


@dataclass(frozen=True)
class Emoji:
    """`code`: "1F44B-1F3FB"; `label`: CLDR's short name without the skin tone."""

    code: str
    label: str
    tags: tuple[str, ...] = ()
    tone: str | None = None

    @property
    def parts(self) -> list[str]:
        return self.code.split("-")

    @property
    def concept(self) -> str:
        """The code without skin tone, gender and direction."""
        parts = [PEOPLE.get(part, part) for part in self.parts if part not in SKIN]
        return "-".join(parts[i] for i in range(len(parts)) if not _mark(parts, i))

    @property
    def gender(self) -> str:
        """Of a single person."""
        woman = {"1F469", "2640"} & set(self.parts)
        return "woman" if woman else "man" if {"1F468", "2642"} & set(self.parts) else "person"

    @property
    def profession(self) -> bool:
        """A person joined with the thing of a trade: a cook, an astronaut."""
        first, _, thing = self.concept.partition("-200D-")
        return first == "1F9D1" and bool(thing) and not re.search("1F9D[12]|1F9B[0-3]", thing)


def _mark(parts: list[str], i: int) -> bool:
    """Whether a part says gender or direction, or is the joiner before that."""
    behind = parts[i + 1] if i + 1 < len(parts) else ""
    return i > 0 and (parts[i] in MARKS or (parts[i] == "200D" and behind in MARKS))


def plain(code: str) -> str:
    """A sequence as `Emoji.code` has it: «39-fe0f-20e3» is 0039-20E3."""
    parts = code.upper().replace("_", "-").split("-")
    return "-".join(part.zfill(4) for part in parts if part != "FE0F")


def squeezed(name: str) -> str:
    """Letters and digits alone: sets differ in spaces, dashes and capitals."""
    return re.sub("[^a-z0-9]", "", name.lower().replace("&", "and"))


class Names:
    """All emoji by code and by name; `modules` is a node_modules with `PACKAGE` and `UNICODE`."""

    def __init__(self, modules: Path) -> None:
        home = modules / "emojibase-data" / "en"
        self.by_code: dict[str, Emoji] = {}
        labels: dict[str, set[str]] = defaultdict(set)
        shortcodes: dict[str, set[str]] = defaultdict(set)
        for entry in json.loads((home / "data.json").read_text()):
            if entry.get("group") in (None, COMPONENT):
                continue
            label, tags = entry["label"], tuple(entry.get("tags", ()))
            for one in (entry, *entry.get("skins", ())):
                code = plain(one["hexcode"])
                tones = [SKIN[part] for part in code.split("-") if part in SKIN]
                said = " and ".join(dict.fromkeys(tones))
                tone = f"{said} skin tone{'s' if ' and ' in said else ''}" if tones else None
                self.by_code[code] = Emoji(code, label, tags, tone)
                labels[squeezed(one["label"])].add(code)
        for file in ("cldr", "emojibase", "github", "iamcal"):
            given = json.loads((home / "shortcodes" / f"{file}.json").read_text())
            for code, names in given.items():
                for name in [names] if isinstance(names, str) else names:
                    shortcodes[squeezed(name)].add(plain(code))
        unicode: dict[str, set[str]] = defaultdict(set)
        for entry in json.loads((modules / "emoji-datasource-google" / "emoji.json").read_text()):
            unicode[squeezed(entry["name"] or "")].add(plain(entry["unified"]))
        self.lookups = labels, unicode, shortcodes

    def named(self, name: str) -> Emoji | None:
        """By a set's own name: CLDR's, Unicode's, or a short code, that means one emoji only."""
        name = re.sub("^(flag-for-flag|flag-for)-", "flag-", name).replace("cat-face-", "cat-")
        for said in (name, re.sub(r"-\d$", "", name), _with_tone(name)):
            for lookup in self.lookups:
                found = lookup.get(squeezed(said), set())
                if len(found) == 1:
                    return self.by_code.get(next(iter(found)))
        return None


def _with_tone(name: str) -> str:
    """Fluent's «skier-medium-dark» in CLDR's words."""
    tone = re.fullmatch(r"(.+?)-(medium-light|medium-dark|light|medium|dark)", name)
    return f"{tone[1]}-{tone[2]}-skin-tone" if tone else name


def spoken(label: str) -> str:
    """CLDR's short name as one would say it: «flag: Peru» is the flag of Peru."""
    kind, _, which = label.partition(": ")
    if not which:
        return label
    if kind == "flag":
        return f"flag of {which}"
    return f"{kind} {which}" if kind == "keycap" else f"{kind}, {which}"


def caption(style: str, emoji: Emoji, rng: Random, whole: bool = True) -> str:
    """One of several wordings; not `whole`: an eighth have keywords in the name's place."""
    name = spoken(emoji.label)
    tags = [tag for tag in emoji.tags if len(tag) > 2 and squeezed(tag) != squeezed(emoji.label)]
    rng.shuffle(tags)
    said = [name, *tags[: rng.choice((0, 0, 1, 2, 3))]]
    if not whole and len(tags) > 1 and rng.random() < 0.125:
        said = tags[:3]
    if emoji.tone:
        said.insert(1, emoji.tone)
    form = rng.choice(("{style}, {said}", "{said}, {style} style", "{style} emoji: {said}"))
    return form.format(style=style, said=", ".join(said))
