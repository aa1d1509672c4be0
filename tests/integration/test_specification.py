"""docs/specification.md is enough: `tests/second_reader.py`, written from it, agrees with us."""

import ast
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import jpeglm as package
from jpeglm.codecs import AvcCodec, JpegCodec
from jpeglm.codecs.avc import AvcConfig
from jpeglm.config import JpegConfig
from jpeglm.generation.matcher import Matcher, make_prompt
from jpeglm.generation.sampling import _uniform
from jpeglm.places import shipped_checkpoints
from jpeglm.text import Text
from jpeglm.tokenizer import Tokenizer

from .. import second_clip_reader, second_reader
from ..second_clip_reader import Clip
from ..second_reader import Folder

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "specification.md").read_text()
SHIPPED = {folder.name: folder for folder in shipped_checkpoints() if folder.name != "clips"}
ALPHABETS = package.JpegCodec.alphabets


@pytest.mark.parametrize(
    ("module", "others"), [(second_reader, {"numpy"}), (second_clip_reader, set())]
)
def test_the_second_readers_stand_on_their_own(module, others):
    tree = ast.parse(Path(module.__file__).read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names - sys.stdlib_module_names == others


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request):
    """(our model, the second reader of its folder)."""
    return package.load(request.param), Folder(SHIPPED[request.param])


def test_ids_are_files_and_files_are_ids(shipped, pictures):
    model, second = shipped
    drawn = model.generate(2, seed=5)
    streams = [*drawn.streams, *(model.codec.encode(picture) for picture in pictures)]
    for stream in streams:
        ids = model.tokenizer.encode_stream(stream).tolist()
        assert second.decode(ids) == model.codec.wrap(stream)
        assert second.encode_file(model.codec.wrap(stream)) == ids
        assert second.encode_file(stream) == ids
    assert [second.decode(second.encode_file(file)) for file in drawn.files] == drawn.files


def test_fingerprints_and_numbers_of_ids(shipped):
    model, second = shipped
    assert second.jpeg.fingerprint() == second.record["fingerprint"] == model.codec.fingerprint
    assert second.fingerprint() == second.record["tokenizer"] == model.tokenizer.fingerprint
    ours = model.tokenizer
    assert (second.bos, second.eos, second.size) == (ours.bos, ours.eos, ours.vocab_size)
    assert second.grammar.symbols == ours.n_base and second.classes == ours.n_classes


SETTINGS = [
    dict(subsampling="4:2:0", restart_interval=0, quality=25),
    dict(subsampling="4:2:0", restart_interval=1, quality=50),
    dict(subsampling="4:2:2", restart_interval=3, quality=90),
    dict(subsampling="4:4:4", restart_interval=2, quality=51),
    dict(subsampling="gray", restart_interval=1, quality=100),
]


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: "-".join(map(str, one.values())))
def test_every_setting_and_alphabet(settings, alphabet, pictures, tmp_path):
    codec = JpegCodec(JpegConfig(32, 32, **settings))
    streams = [codec.encode(picture) for picture in pictures]
    base = codec.alphabet(alphabet).size
    Tokenizer.train(streams, codec, alphabet, base + 102).save(tmp_path)
    ours, second = Tokenizer.load(tmp_path), Folder(tmp_path)
    assert second.jpeg.header(True) == codec.file_header
    assert second.fingerprint() == ours.fingerprint
    for stream in streams[:5]:
        ids = ours.encode_stream(stream).tolist()
        assert second.decode(ids) == codec.wrap(stream)
        assert second.encode_file(codec.wrap(stream)) == ids


@pytest.mark.parametrize("name", SHIPPED)
def test_ids_that_spell_no_picture_are_read_alike(name):
    tokenizer, second = Tokenizer.load(name), Folder(SHIPPED[name])
    rng = np.random.default_rng(0)
    for length in (0, 1, 7, 60):
        for _ in range(8):
            ids = rng.integers(0, tokenizer.bos, length)
            ours = tokenizer.codec.wrap(tokenizer.decode_stream(ids))
            assert second.decode(ids.tolist()) == ours


def walks(name, budget, given, forced, matcher):
    """Both along the same tokens, drawn blindly among the legal ones: how many there were."""
    second = Folder(SHIPPED[name])
    walk = second.walk(budget, given, forced)
    rng = np.random.default_rng(budget)
    while not matcher.ended:
        ours = np.flatnonzero(matcher.allowed()).tolist()
        assert [token for token in range(second.size) if walk.legal(token)] == ours
        token = int(rng.choice(ours))
        assert matcher.accept(token)
        walk.accept(token)
    return len(matcher.ids)


@pytest.mark.parametrize(("name", "spare"), [("cifar10", 0), ("cifar10", 40), ("photos", 30)])
def test_the_same_tokens_are_legal_within_a_budget(name, spare):
    tokenizer = Tokenizer.load(name)
    need = Matcher(tokenizer).tokens_to_end
    budget = 1 + need + spare
    matcher = Matcher(tokenizer, max_tokens=budget)
    taken = walks(name, budget, [tokenizer.bos], [], matcher)
    assert need // 8 < taken <= budget - 1


@pytest.mark.parametrize("units", [1, 3])
def test_a_prompt_forces_the_same(units, pictures):
    tokenizer, second = Tokenizer.load("cifar10"), Folder(SHIPPED["cifar10"])
    forced_at_all = 0
    for picture in pictures:
        prefix = tokenizer.alphabet.prefix(tokenizer.codec.encode(picture), units)
        prompt = make_prompt(tokenizer, prefix, tokenizer.bos)
        ids, forced = second.prompt(prefix.symbols.tolist())
        assert ([second.bos, *ids], forced) == (prompt.ids.tolist(), prompt.forced.tolist())
        forced_at_all += len(forced)
        matcher = Matcher(tokenizer, prompt, max_tokens=200)
        if picture is pictures[0]:
            walks("cifar10", 200, [second.bos, *ids], forced, matcher)
    assert forced_at_all


def test_holes_and_words(pictures):
    tokenizer, second = Tokenizer.load("avatars"), Folder(SHIPPED["avatars"])
    rng = np.random.default_rng(1)
    for picture in pictures:
        stream = tokenizer.codec.encode(picture)
        hole = rng.random(tokenizer.addresses) < 0.3
        around, inside = tokenizer.around(tokenizer.alphabet.split(stream), hole)
        ids = [*tokenizer.head(text="a red  hat\n"), *around, *inside, tokenizer.eos]
        assert second.hole in ids and second.decode(ids) == tokenizer.codec.wrap(stream)
    assert isinstance(tokenizer.text, Text)
    for text in ("adventurer, short red hair", "  größer\tals 冰 ", "€"):
        assert second.encode_text(text) == tokenizer.head(text=text)[:-1].tolist()


@pytest.mark.parametrize("label", [None, 8])
def test_a_picture_is_drawn_alike_from_the_folder_alone(label):
    """The Llama too is the second reader's own: bits of its logits differ, no token does."""
    chosen = second_reader.Sampling(0.9, 40, 0.95)
    head = None if label is None else Folder(SHIPPED["cifar10"]).eos + 1 + label
    ids, file = second_reader.draw(SHIPPED["cifar10"], chosen, seed=3, picture=0, head=head)
    model = package.load("cifar10", precision="float32")
    ours = model.generate(1, seed=3, label=label, guidance=1.0, **chosen._asdict())
    assert ids == ours.ids[0].tolist() and ids[-1] == model.tokenizer.eos
    assert file == ours.files[0]


def test_the_random_numbers_are_the_same():
    scratch = np.zeros(1, np.uint64)
    for three in [(0, 0, 0), (1, 2, 3), (2**63 - 1, 5, 700)]:
        ours = _uniform(*(np.int64(number) for number in three), scratch)
        assert second_reader.uniform(*three) == ours


def test_the_header_on_the_page_is_one():
    (text,) = re.findall(r"^((?:    (?:[0-9A-F]{2} ?)+\n)+)", PAGE, re.MULTILINE)
    codec = JpegCodec(JpegConfig(64, 48, restart_interval=1))
    assert bytes.fromhex(text) == codec.header


def test_the_keys_on_the_page_are_those_of_the_files():
    """Every key of a shipped checkpoint's `codec.json` is explained, and its settings too."""
    for folder in SHIPPED.values():
        record = json.loads((folder / "codec.json").read_text())
        for key in [*record, *record["codec"]]:
            assert f"`{key}`" in PAGE or f'`"{key}"`' in PAGE, key


CLIPS = (ROOT / "docs" / "specification-clips.md").read_text()


def test_the_numbers_of_clips_are_those_on_their_page():
    from jpeglm.syntax.avc.symbols import BASE, COUNTS, NAMES, symbol_count

    rows = re.findall(r"^\| ([\w ]+) \| (\d+) \| (\d+) \|", CLIPS, re.MULTILINE)
    assert rows == [(n, str(b), str(c)) for n, b, c in zip(NAMES, BASE, COUNTS, strict=False)]
    assert (symbol_count(1), symbol_count(3)) == (385, 401)


def test_the_bytes_of_the_shipped_clips_are_those_on_their_page():
    pytest.importorskip("av")
    tokenizer = Tokenizer.load("clips")
    codec, alphabet = tokenizer.codec, tokenizer.alphabet
    (text,) = re.findall(r"^    ([0-9a-f]{2}(?: [0-9a-f]{2})+)$", CLIPS, re.MULTILINE)
    assert bytes.fromhex(text) == codec.sets_bytes
    assert alphabet.size == 380 and "has 380 symbols" in CLIPS
    heads = [alphabet.elements.headers[number] for number in (0, 1)]
    tails = "here {} in the IDR picture, {} in others".format(*(head.tail for _, head in heads))
    assert tails in CLIPS and [f"{first:02x}" for first, _ in heads] == ["65", "41"]
    assert codec.sets.frame_bits == 4
    names = [alphabet.symbol_name(symbol) for symbol in (0, 372, 374, 375, 376, 379)]
    assert names == ["I type 0", "row 0", "row 2", "end of slice", "column 0", "column 3"]
    folder = Path(tokenizer.folder)
    settings = json.loads((folder / "codec.json").read_text())["codec"]
    assert all(f"`{key}`" in CLIPS for key in settings if key != "codec")


def clip_of(codec):
    """The second reader of clips, told what the page says that it must be told."""
    tails = [header.tail for _, header in codec.symbols.headers]
    return Clip(codec.to_dict(), codec.sets_bytes, (tails[0], tails[-1]), codec.sets.frame_bits)


def test_clips_are_written_alike_from_their_page():
    """Ids that the shipped model draws, and those of a film."""
    pytest.importorskip("av")
    tokenizer = Tokenizer.load("clips")
    film = Path(package.__file__).parent / "assets" / "pan.mp4"
    drawn = package.load("clips").generate(2, seed=1, temperature=1.0)
    second = second_reader.Vocabulary(Path(tokenizer.folder))
    for ids in (*drawn.ids, tokenizer.encode_stream(tokenizer.codec.encode(film))):
        ours = tokenizer.codec.wrap_annex_b(tokenizer.decode_stream(ids))
        assert clip_of(tokenizer.codec).file(second.symbols(ids.tolist())) == ours


@pytest.mark.parametrize(
    ("qp", "slices", "noise"), [(1, 1, 40), (12, 3, 20), (30, 5, 8), (45, 2, 0)]
)
def test_clips_of_other_settings_are_written_alike(qp, slices, noise):
    pytest.importorskip("av")
    rng = np.random.default_rng(qp)
    ramp = np.add.outer(np.arange(80), 2 * np.arange(96))
    frames = [np.stack([ramp + 3 * t, 2 * ramp - t, 200 - ramp], -1) % 256 for t in range(4)]
    clip = np.array(frames) + rng.normal(0, noise, (4, 80, 96, 3)) * (
        rng.random((4, 80, 96, 1)) < 0.4
    )
    codec = AvcCodec(AvcConfig(width=96, height=80, frames=4, qp=qp, slices=slices))
    stream = codec.encode(clip.clip(0, 255).astype(np.uint8))
    symbols = codec.alphabet("avc-placed-symbols").split(stream).tolist()
    assert clip_of(codec).file(symbols) == codec.wrap_annex_b(stream)
