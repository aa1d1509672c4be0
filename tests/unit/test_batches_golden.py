"""The order of batches is kept: of every way of packing, what a run of an earlier version learnt at
a step is what this one learns there. Hashes of two epochs, made before plans were changed.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from jpeglm.config import InputError
from jpeglm.data.loader import TrainingLoader, validation_batches
from jpeglm.data.mapped import MappedIds
from jpeglm.data.token_index import index_of, read_index, write_index
from jpeglm.data.token_set import TokenSet, in_memory
from jpeglm.data.token_shards import token_path

GOLDEN = Path(__file__).parents[1] / "golden" / "batches.json"
BOS, EOS, CLASS, HOLE, AT = 1000, 1001, 1002, 1010, 1011


def sequences(text: bool) -> list[np.ndarray]:
    """700 of 20 to 200 ids; of two in three a caption of up to 30 ids before them."""
    found = []
    for number in range(700):
        head = (number * 13) % 31 if text and number % 3 else 0
        inner = (np.arange(18 + number * number * 7919 % 181) * 31 + number) % 1000
        first = CLASS if number % 4 else BOS
        found.append(np.concatenate([(np.arange(head) * 7 + number) % 900, [first], inner, [EOS]]))
    return found


def arrays(text: bool) -> dict[str, np.ndarray]:
    """The sequences as a token shard has them."""
    parts = sequences(text)
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return {
        "tokens": np.concatenate(parts).astype(np.uint16),
        "offsets": offsets,
        "split": np.zeros(700, np.int8),
        "label": np.where(np.arange(700) % 4, 0, -1).astype(np.int32),
        "stream_bytes": offsets[1:].astype(np.int32),
        "text": np.array([np.flatnonzero(part >= BOS)[0] for part in parts], np.int32),
    }


def in_arrays(text: bool) -> TokenSet:
    found = arrays(text)
    return in_memory(*(found[name] for name in (
        "tokens", "offsets", "label", "stream_bytes", "text")))  # fmt: skip


def in_shards(text: bool, folder: Path) -> TokenSet:
    """The same in files of 64 sequences, by the index that `prepare` writes beside them."""
    folder.mkdir()
    whole = arrays(text)
    for file, start in enumerate(range(0, 700, 64)):
        rows = slice(start, min(start + 64, 700))
        begin, end = whole["offsets"][rows.start], whole["offsets"][rows.stop]
        part = {name: whole[name][rows] for name in ("split", "label", "stream_bytes", "text")}
        offsets = whole["offsets"][rows.start : rows.stop + 1] - begin
        # A held-out sequence before each file's own: what is trained is not all that lies there.
        strange = np.full(9, 999, np.uint16)
        part = {name: np.concatenate([values[:1], values]) for name, values in part.items()}
        part["split"][0] = 1
        part["text"][0] = 0
        tokens = np.concatenate([strange, whole["tokens"][begin:end]])
        part |= {"tokens": tokens, "offsets": np.concatenate([[0], offsets + 9])}
        meta = {"tokenizer": "t", "fingerprint": "f"}
        save_file(part, token_path(folder, file), {"jpeglm": json.dumps(meta)})
    index = index_of((token_path(folder, file) for file in range(11)), "f")
    write_index(folder, index)
    read = read_index(folder, "t", "f", 11)
    assert read is not None and read.digests == index.digests
    return read.token_set(folder, "train")


def turned(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A hole of a kind: where it is, the rest turned round."""
    at = int(rng.integers(1, len(ids)))
    return np.concatenate([[AT + at % 5, HOLE], ids[at:], ids[:at]])


SHARES: dict[str, dict[str, Any]] = {
    "plain": {},
    "classes": {"class_dropout": 0.3},
    "captions": {"caption_dropout": 0.4},
    "captions and classes": {"caption_dropout": 0.2, "class_dropout": 0.5},
    "holes": {"fim": 0.6, "holes": (turned, HOLE)},
    "holes in captioned": {"fim": 0.6, "holes": (turned, HOLE), "caption_dropout": 0.3},
}
CASES = [
    (mode, share, length, world)
    for mode in ("pictures", "rows", "chunks")
    for share in SHARES
    for length in (256, 96)
    for world in (1, 3)
    if not (mode == "chunks" and "holes" in share)
]


def digest(batches: Any) -> str:
    whole = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            whole.update(repr((name, batch[name].shape, str(batch[name].dtype))).encode())
            whole.update(np.ascontiguousarray(batch[name]).data)
    return whole.hexdigest()[:16]


def hashed(made: Any, mode: str, share: str, length: int, world: int) -> str:
    """Of two epochs of the last of `world` processes; captions cut where they must be."""
    if mode != "chunks":
        made, _ = made.fitted(length)
    loader = TrainingLoader(made, mode, 1024, length, 7, world - 1, world, bos=BOS, **SHARES[share])
    count = loader.steps_per_epoch + len(loader.batches.plan(1))
    return digest(islice(loader, count))


def name(mode: str, share: str, length: int, world: int) -> str:
    return f"{mode}, {share}, rows of {length}, {world} processes"


def found(sets: dict[bool, TokenSet]) -> Iterator[tuple[str, str]]:
    for case in CASES:
        yield name(*case), hashed(sets["captio" in case[1]], *case)
    held_out = sets[True].fitted(200)[0]
    yield "held out", digest(validation_batches(held_out, 1024, 190, 1, 2, HOLE))
    few = sets[True].select(np.arange(3, 700, 9))
    yield "some held out", digest(validation_batches(few, 2048, 300))
    holed = few.holed(turned, HOLE)
    yield "held-out holes", digest(validation_batches(holed, 2048, 300, marks=HOLE))


@pytest.mark.parametrize("where", ["memory", "shards"])
def test_batches_are_those_of_earlier_versions(where: str, tmp_path: Path):
    if where == "memory":
        sets = {text: in_arrays(text) for text in (False, True)}
    else:
        sets = {text: in_shards(text, tmp_path / str(text)) for text in (False, True)}
    hashes = dict(found(sets))
    if os.environ.get("JPEGLM_REGENERATE"):
        GOLDEN.write_text(json.dumps(hashes, indent=1) + "\n")
    assert hashes == json.loads(GOLDEN.read_text())


def test_few_files_are_mapped_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And those that are mapped again hold what they held."""
    monkeypatch.setattr("jpeglm.data.mapped.MAPPED_FILES", 2)
    tokens = in_shards(True, tmp_path / "shards")
    expected = sequences(True)
    for number in np.random.default_rng(0).permutation(700).tolist():
        assert (tokens.ids(number) == expected[number]).all()
        assert isinstance(tokens.tokens, MappedIds) and len(tokens.tokens._mapped) <= 2
    assert tokens.total == sum(map(len, expected)) == len(tokens.tokens) - 9 * 11


def test_a_set_is_known_by_its_content(tmp_path: Path):
    """Not by where it lies, as long as it is cut into shards alike."""
    assert in_shards(True, tmp_path / "a").digest == in_shards(True, tmp_path / "b").digest
    assert in_shards(True, tmp_path / "c").digest != in_shards(False, tmp_path / "d").digest


@pytest.mark.parametrize("how", ["gone", "cut", "other", "empty"])
def test_a_shard_that_is_not_the_one_of_the_index_ends_in_a_sentence(how: str, tmp_path: Path):
    tokens = in_shards(True, tmp_path / "shards")
    path = token_path(tmp_path / "shards", 3)
    whole = path.read_bytes()
    path.unlink()
    if how != "gone":
        changed = {"cut": whole[:-10], "other": whole.replace(b'"label"', b'"lebal"'), "empty": b""}
        path.write_bytes(changed[how])
    assert (tokens.ids(0) == sequences(True)[0]).all()
    with pytest.raises(InputError, match=r"shard-00003\.tokens\.safetensors"):
        tokens.ids(200)


@pytest.mark.parametrize("place", [-1, 10**9])
def test_an_index_that_points_elsewhere_ends_in_a_sentence(place: int, tmp_path: Path):
    tokens = in_shards(True, tmp_path / "shards")
    starts = tokens.starts.copy()
    starts[5] = place
    with pytest.raises(InputError, match=r"prepare the tokens again"):
        replace(tokens, starts=starts).ids(5)
