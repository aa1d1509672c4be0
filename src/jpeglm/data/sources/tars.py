"""WebDataset tars: plain or compressed, one archive or several in a row, whole or damaged.

    archives.py ──members──▶ here ──names──▶ samples.py ──picture, label, caption of each──▶ units

Links lead to what they name, sparse files are put together; what cannot be used is listed.

Trade-off: a compressed tar is decompressed twice, once to list it and once to read it, both times
as a stream; nothing but one picture is ever in memory.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from jpeglm.data.sources.archives import Tar, open_tar
from jpeglm.data.sources.base import (
    HIDDEN,
    Item,
    Rejected,
    Source,
    extension,
    has,
    read_label,
    size_limit,
)
from jpeglm.data.sources.captions import MAX_CAPTION, columns, name_caption, read_caption
from jpeglm.data.sources.samples import Listing, Member, Name, choose, parts_of
from jpeglm.files import printable, told
from jpeglm.remote import Unreachable, below

MAX_LABEL_TEXT = 64
MAX_CAPTIONS = 1 << 28
"""Bytes of all captions of a tar, which are kept until its pictures are read."""
MAX_LINKS = 40
"""That lead from one to the next, as on a disk."""
ANY = -1
"""Stands for the last run that holds a name."""


@dataclass(frozen=True)
class TarUnit:
    """Pictures of one tar in their order; a compressed tar is a single unit, read in one pass."""

    root: Path
    file: str
    members: tuple[Member, ...]

    @property
    def count(self) -> int:
        return len(self.members)

    def describe(self) -> tuple[Any, ...]:
        told = [(m.name, m.offset, m.size) for m in self.members]
        captions = tuple((m.name, m.caption) for m in self.members if m.caption is not None)
        return ("tar", self.file, tuple(told), *((captions,) if captions else ()))

    def item_keys(self) -> Iterator[str]:
        return (self._key(member) for member in self.members)

    def _key(self, member: Member) -> str:
        again = f" ({member.number})" if member.number > 1 else ""
        return printable(f"{self.file}/{member.name}{again}")

    def read(self) -> Iterator[Item | Rejected]:
        reason = ""
        last: tuple[Any, bytes] = ((), b"")  # links to one file lie at one place
        try:
            file, _ = open_tar(below(self.root, self.file))
        except Unreachable:
            raise
        except Exception as error:
            file, reason = io.BytesIO(), f"the tar cannot be read: {told(error)}"
        with file:
            for member in self.members:
                name = printable(f"{below(self.root, self.file)}:{member.name}")
                limit = size_limit(member.name)
                if member.size > limit:
                    yield Rejected(
                        name, f"it has {member.size / 1e6:,.0f} MB, more than {limit / 1e6:,.0f} MB"
                    )
                    continue
                if not reason and last[0] != member.pieces:
                    try:
                        last = (member.pieces, _read_pieces(file, member))
                    except Unreachable:
                        raise
                    except Exception as error:  # whatever a decompressor meets
                        reason = f"the tar is damaged before or in it: {told(error)}"
                if reason:
                    yield Rejected(name, reason)
                else:
                    yield self._item(member, last[1], name)

    def _item(self, member: Member, data: bytes, name: str) -> Item | Rejected:
        if len(data) < member.size:
            return Rejected(name, "the tar ends inside this picture")
        try:
            label = read_label(member.label)
            caption = read_caption(member.caption)
        except ValueError as error:
            return Rejected(name, str(error))
        return Item(self._key(member), data, label, name, caption=caption)


def _read_pieces(file: IO[bytes], member: Member) -> bytes:
    """Shorter than the member's size where the tar ends."""
    if len(member.pieces) == 1 and member.pieces[0][1] == member.size:
        file.seek(member.offset)
        return file.read(member.size)
    whole = bytearray(member.size)
    for offset, size, place in member.pieces:
        if place + size > member.size:
            return b""
        file.seek(offset)
        piece = file.read(size)
        if len(piece) < size:
            return b""
        whole[place : place + size] = piece
    return bytes(whole)


def list_tar(source: Source, name: str, size: int, unit_size: int) -> None:
    """Units of a tar's pictures; what cannot be used goes to the source's `rejected`, `passed`."""
    path = below(source.root, name)
    listing = Listing()
    compressed = False
    try:
        file, compressed = open_tar(path)
        with file:
            _scan(file, source, listing, path)
    except Unreachable:
        raise
    except Exception as error:  # whatever tarfile and the decompressors meet
        source.rejected.append(Rejected(printable(path), f"the tar is damaged: {told(error)}"))
    members, refused = choose(listing, source.column)
    for member, reason in listing.rejected + refused:
        source.rejected.append(Rejected(printable(f"{path}:{member}"), reason))
    source.passed.update(listing.passed)
    members.sort(key=lambda member: member.offset)
    if source.caption == "names":
        members = [replace(member, caption=name_caption(member.name)) for member in members]
        source.caption_from["names of files"] += len(members)
    elif any(member.caption is not None for member in members):
        source.caption_from[".txt files"] += sum(m.caption is not None for m in members)
    step = max(1, len(members)) if compressed else unit_size
    for start in range(0, len(members), step):
        source.units.append(TarUnit(source.root, name, tuple(members[start : start + step])))


def _scan(file: Any, source: Source, listing: Listing, path: Path) -> None:
    """Read all headers (and the labels) of a tar into the listing."""
    beside: dict[str, dict[tuple[int, str], bytes]] = {}
    if source.labels == "source":
        beside[".cls"] = listing.labels
    if columns(source):
        beside[".txt"] = listing.captions
    wanted, captions = (*source.extensions, *beside), 0
    links: list[tuple[str, Name, tarfile.TarInfo]] = []
    places: dict[tuple[int, str], Member] = {}
    texts: dict[tuple[int, str], bytes] = {}
    seen: set[tuple[int, str]] = set()
    counts: dict[str, int] = {}
    run = archive = 0
    tar = Tar(file)
    try:
        for info, number in tar.walk():
            base = posixpath.basename(info.name)
            if info.isdir():
                continue
            if base.startswith(".") or info.name.startswith("__MACOSX/"):
                listing.passed += [HIDDEN] if has(base, source.extensions) else []
                continue
            if number > archive or (run, info.name) in seen:
                archive, run = number, run + 1
            seen.add((run, info.name))
            parts = parts_of(info.name, run)
            if info.issym() or info.islnk():
                if has(base, wanted):
                    links.append((info.name, parts, info))
                else:
                    listing.passed.append(extension(base))
                continue
            place = posixpath.normpath(info.name)
            if info.isreg() and parts.end in beside:
                if parts.end == ".cls":
                    text = b"" if info.size > MAX_LABEL_TEXT else file.read(info.size)
                else:
                    text = file.read(min(info.size, MAX_CAPTION + 1))
                    captions += len(text)
                if captions > MAX_CAPTIONS:
                    raise tarfile.ReadError(
                        f"its captions have more than {MAX_CAPTIONS >> 20} MiB; split it"
                    )
                texts[run, place] = texts[ANY, place] = text
                beside[parts.end][run, parts.stem] = text
                listing.stems.add((run, parts.stem))
                continue
            if info.isreg():
                member = places[run, place] = places[ANY, place] = _member(info, counts)
            if not has(base, wanted):
                listing.passed.append(extension(base))
                listing.stems.add((run, parts.stem))
            elif info.isreg():
                listing.pictures.append((parts, member))
            else:
                listing.rejected.append((info.name, "it is not a regular file"))
    finally:
        for byte in tar.damage.values():
            reason = f"the tar is damaged at byte {byte}; what lies behind is read where it can be"
            source.rejected.append(Rejected(printable(path), reason))
        _follow(links, places, texts, beside, listing, counts)


def _member(info: tarfile.TarInfo, counts: dict[str, int]) -> Member:
    counts[info.name] = counts.get(info.name, 0) + 1
    pieces: list[tuple[int, int, int]] = [(info.offset_data, info.size, 0)]
    if info.issparse():
        place, pieces = info.offset_data, []
        for start, size in info.sparse:  # type: ignore
            pieces.append((place, size, start))
            place += size
    return Member(info.name, info.size, tuple(pieces), None, counts[info.name])


def _follow(
    links: list[tuple[str, Name, tarfile.TarInfo]],
    places: dict[tuple[int, str], Member],
    texts: dict[tuple[int, str], bytes],
    beside: dict[str, dict[tuple[int, str], bytes]],
    listing: Listing,
    counts: dict[str, int],
) -> None:
    """Give links what they lead to, over other links, before or behind them in the tar; in their
    own run if that holds it, since archives in a row have the same names."""
    targets: dict[tuple[int, str], str] = {}
    for name, parts, info in links:
        folder = posixpath.dirname(name) if info.issym() else ""
        target = posixpath.normpath(posixpath.join(folder, info.linkname))
        for run in (parts.run, ANY):
            targets[run, posixpath.normpath(name)] = target
    for name, parts, info in links:
        wanted: Any = texts if parts.end in beside else places
        place, found = posixpath.normpath(name), None
        for _ in range(MAX_LINKS):
            next_place = targets.get((parts.run, place)) or targets.get((ANY, place))
            if next_place is None:
                break
            place = next_place
            found = wanted.get((parts.run, place), wanted.get((ANY, place)))
            if found is not None:
                break
        if isinstance(found, Member):
            counts[name] = counts.get(name, 0) + 1
            member = Member(name, found.size, found.pieces, None, counts[name])
            listing.pictures.append((parts, member))
        elif found is not None:
            beside[parts.end][parts.run, parts.stem] = found
            listing.stems.add((parts.run, parts.stem))
        else:
            reason = f"it is a link to {printable(info.linkname)}, which the tar does not hold"
            listing.rejected.append((name, reason))
