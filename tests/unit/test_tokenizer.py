"""BPE against Hugging Face's trainer and encoder, and the tokenizer's files."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jpeglm import bpe
from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers")

CASES = [
    ("paper-bytes", JpegConfig(128, 128, restart_interval=1), 320),
    ("paper-bytes-prefixed", JpegConfig(64, 64, restart_interval=1), 320),
    ("bytes", JpegConfig(64, 64), 400),
    ("jpeg-symbols", JpegConfig(64, 64), 400),
    ("jpeg-block-symbols", JpegConfig(64, 64, restart_interval=1), 420),
    ("jpeg-placed-symbols", JpegConfig(64, 64), 600),
    ("jpeg-coarse-symbols", JpegConfig(64, 64, restart_interval=3), 420),
]


@pytest.mark.parametrize(("alphabet", "config", "size"), CASES, ids=[c[0] for c in CASES])
def test_merges_and_ids_are_hugging_faces(alphabet, config, size, pictures):
    codec = JpegCodec(config)
    streams = [codec.encode(picture) for picture in pictures]
    ours = Tokenizer.train(streams, codec, alphabet, size)
    texts = ["".join(map(ours.character, ours.alphabet.split(s).tolist())) for s in streams]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - 2,
        min_frequency=2,
        initial_alphabet=[ours.character(s) for s in range(ours.n_base)],
        show_progress=False,
    )
    theirs.train_from_iterator(texts, trainer)
    model = json.loads(theirs.to_str())["model"]
    mine = ours.to_hugging_face()["model"]
    assert mine["merges"] == [list(pair) for pair in model["merges"]] and len(mine["merges"]) > 50
    assert mine["vocab"] == model["vocab"]
    # Learning ends early where no pair occurs twice, as theirs does.
    assert ours.vocab_size == len(model["vocab"]) + 2 <= size
    for stream, text in zip(streams, texts, strict=True):
        ids = ours.encode_stream(stream)
        assert ids.tolist() == theirs.encode(text).ids
        assert ours.decode_stream(ids) == stream


@pytest.fixture(scope="module")
def small():
    """Many merges over few symbols, some of them spelling the same: long pieces, shared tokens."""
    codec = JpegCodec(JpegConfig(64, 64))
    merges = [(1, 1), (204, 1), (1, 204), (2, 1), (206, 204), (2, 204), (204, 204), (3, 3), (1, 2)]
    return Tokenizer(codec, "jpeg-symbols", np.array(merges, np.int32))


@pytest.fixture(scope="module")
def dense():
    """Every token in one way alone, and most sequences of three symbols inside some token."""
    rng = np.random.default_rng(0)
    merges = bpe.train_merges(rng.choice(3, 4000, p=[0.6, 0.3, 0.1]).astype(np.int32), 204, 260)
    distinct = next(
        n for n in range(len(merges), 0, -1)
        if len(set(bpe.spell(204, np.array(merges[:n]))[1].tolist())) == n
    )  # fmt: skip
    assert distinct > 20
    return Tokenizer(JpegCodec(JpegConfig(64, 64)), "jpeg-symbols", np.array(merges[:distinct]))


@settings(max_examples=1000, deadline=None)
@given(symbols=st.lists(st.integers(0, 2), max_size=60))
def test_encoding_by_neighbours_is_hugging_faces(dense, symbols):
    peer = tokenizers.Tokenizer.from_str(json.dumps(dense.to_hugging_face()))
    array = np.array(symbols, np.int32)
    ids = dense.encode_symbols(array)
    assert ids.tolist() == peer.encode("".join(map(dense.character, symbols))).ids
    assert dense.decode(ids).tolist() == symbols


@settings(max_examples=300, deadline=None)
@given(symbols=st.lists(st.integers(0, 4), max_size=80))
def test_encoding_is_hugging_faces_on_any_symbols(small, symbols):
    peer = tokenizers.Tokenizer.from_str(json.dumps(small.to_hugging_face()))
    array = np.array(symbols, np.int32)
    ids = small.encode_symbols(array)
    assert ids.tolist() == peer.encode("".join(map(small.character, symbols))).ids
    assert small.decode(ids).tolist() == symbols


@settings(max_examples=200, deadline=None)
@given(symbols=st.lists(st.integers(0, 4), max_size=40), more=st.lists(st.integers(0, 4)))
def test_stable_tokens_stay_whatever_follows(small, symbols, more):
    prefix = np.array(symbols, np.int32)
    stable = small.stable(prefix)
    kept = small.encode_symbols(prefix[:stable]).tolist()
    whole = small.encode_symbols(np.array(symbols + more, np.int32)).tolist()
    assert whole[: len(kept)] == kept


def test_restart_markers_never_merge(pictures):
    codec = JpegCodec(JpegConfig(64, 64, restart_interval=1))
    tokenizer = Tokenizer.train([codec.encode(p) for p in pictures], codec, "bytes", 500)
    assert tokenizer.n_base == 264 and len(tokenizer.merges) > 100
    assert not (tokenizer.symbols[tokenizer.offsets[264] :] >= 256).any()


def test_files_round_trip_and_load_in_transformers(tmp_path, pictures):
    transformers = pytest.importorskip("transformers")
    codec = JpegCodec(JpegConfig(64, 64, restart_interval=1))
    streams = [codec.encode(p) for p in pictures]
    names = ("cat", "dog", "ship")
    tokenizer = Tokenizer.train(streams, codec, vocab_size=400, n_classes=3, class_names=names)
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        again = Tokenizer.load(path)
        assert again.fingerprint == tokenizer.fingerprint
        assert (again.bos, again.eos, again.vocab_size) == (398, 399, 403)
        assert {again.class_token(label) for label in (2, "2", "ship")} == {402}
    for label in (3, -1, "3", "-1", "horse", "½", "²", "9" * 5000):  # Python reads 4300 digits
        shown = str(label)[:60]
        with pytest.raises(InputError, match=f"label {shown} is unknown; .*: cat, dog, ship"):
            again.class_token(label)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert (theirs.bos_token_id, theirs.eos_token_id, len(theirs)) == (398, 399, 403)
    ids = tokenizer.encode_stream(streams[0])
    text = "".join(map(tokenizer.character, tokenizer.alphabet.split(streams[0]).tolist()))
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids.tolist()
    assert theirs.decode(ids.tolist()) == text


def test_damaged_folders_are_named(tmp_path, pictures):
    codec = JpegCodec(JpegConfig(64, 64))
    tokenizer = Tokenizer.train([codec.encode(pictures[0])], codec, vocab_size=270)
    with pytest.raises(InputError, match="no tokenizer folder"):
        Tokenizer.load(tmp_path / "nothing")
    tokenizer.save(tmp_path)
    whole = {name: (tmp_path / name).read_text() for name in ("codec.json", "tokenizer.json")}
    changed = json.loads(whole["codec.json"]) | {"fingerprint": "0" * 16}
    unmarked = json.loads(whole["codec.json"]) | {"tokenizer": None}
    for name, text in (
        ("tokenizer.json", "{"),
        ("tokenizer.json", '{"model": {}}'),
        ("codec.json", '{"codec": {"codec": "gif"}}'),
        ("codec.json", json.dumps(changed)),
        ("codec.json", json.dumps(unmarked)),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            Tokenizer.load(tmp_path)
        (tmp_path / name).write_text(whole[name])
    with pytest.raises(InputError, match="the checkpoint is 3; give a folder"):
        Tokenizer.load(3)
    (tmp_path / "codec.json").unlink()
    with pytest.raises(InputError, match=r"lacks codec\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("size", [100, 265])
def test_too_small_a_vocabulary_is_refused(size, pictures):
    codec = JpegCodec(JpegConfig(64, 64))
    with pytest.raises(InputError, match="vocab_size"):
        Tokenizer.train([codec.encode(pictures[0])], codec, vocab_size=size)


@pytest.mark.parametrize("symbol", [-1, 204, 300, 10**9])
@pytest.mark.parametrize("merges", [[(1, 1)], []])
def test_symbols_that_no_alphabet_has(symbol, merges):
    """They are looked up in tables without a check of every index."""
    codec = JpegCodec(JpegConfig(64, 64))
    tokenizer = Tokenizer(codec, "jpeg-symbols", np.array(merges, np.int32))
    with pytest.raises(InputError, match=rf"symbol {symbol} is unknown.*0 to 203"):
        tokenizer.encode_symbols(np.array([0, symbol]))
    assert tokenizer.encode_symbols(np.array([], np.int64)).tolist() == []


def test_an_alphabet_of_the_same_size_is_no_substitute(pictures, tmp_path):
    """Its symbols mean something else: all would load and nonsense be drawn."""
    codec = JpegCodec(JpegConfig(32, 32))
    name, other = "jpeg-block-symbols", "jpeg-coarse-symbols"
    assert codec.alphabet(name).size == codec.alphabet(other).size
    streams = [codec.encode(picture) for picture in pictures]
    Tokenizer.train(streams, codec, name, vocab_size=300).save(tmp_path)
    record = tmp_path / "codec.json"
    text = record.read_text()
    record.write_text(text.replace(name, other))
    with pytest.raises(InputError, match="do not belong together"):
        Tokenizer.load(tmp_path)
    older = json.loads(text)
    del older["tokenizer"]
    record.write_text(json.dumps(older))
    assert Tokenizer.load(tmp_path).alphabet.name == name
