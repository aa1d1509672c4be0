"""Words as tokens: against Hugging Face's trainer and encoder, and never among a picture's."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.matcher import Constraint, Matcher, bare_prompt, make_prompt
from jpeglm.generation.sampling import Sampling
from jpeglm.places import shipped_checkpoint
from jpeglm.text import Text, tidy
from jpeglm.tokenizer import Tokenizer

from .conftest import hugging_face, random_llama

tokenizers = pytest.importorskip("tokenizers")

CAPTIONS = [
    f"{style}, {glasses}{colour} hair, {skin} skin; it's smiling — {emoji} {right}"
    for style in ("adventurer", "persona", "big smile")
    for glasses in ("", "glasses, ")
    for colour in ("short red", "long blond", "red-brown")
    for skin in ("dark", "light")
    for emoji, right in (("❤️", "قلب أحمر"), ("👩🏽‍🚀", "לב אדום"), ("中文", "赤い"))
]
HARD = [
    "",
    " ",
    "a",
    "  a  b ",
    "❤️👩🏽‍🚀",
    "قلب أحمر",
    "‮abc",
    "中文⣿",
    "\0\n\t",
    "e\u0301é",
    "<0x41>",
    "x" * 500,
]


@pytest.fixture(scope="module")
def text():
    return Text.train(CAPTIONS, 500)


@pytest.fixture(scope="module")
def speaking(text, pictures):
    """A tokenizer with classes and text."""
    codec = JpegCodec(JpegConfig(48, 32, restart_interval=1))
    streams = [codec.encode(picture) for picture in pictures]
    return Tokenizer.train(streams, codec, vocab_size=420, n_classes=3, text=text)


@pytest.fixture(scope="module")
def theirs(speaking, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("speaking")
    speaking.save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_merges_are_hugging_faces(text):
    """Of pieces that begin at each ASCII byte that is neither letter nor digit."""
    border = "".join(chr(0x4E00 + b) for b in range(128) if not chr(b).isalnum())
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    peer.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(f"[{border}]"), "merged_with_next"
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500, min_frequency=2, show_progress=False,
        initial_alphabet=[chr(0x4E00 + byte) for byte in range(256)],
    )  # fmt: skip
    shown = ["".join(chr(0x4E00 + byte) for byte in caption.encode()) for caption in CAPTIONS]
    peer.train_from_iterator(shown, trainer)
    told = ["".join(chr(0x4E00 + byte) for byte in spelt) for spelt in text.spelling]
    mine = [[told[a], told[b]] for a, b in text.merges.tolist()]
    assert mine == [list(pair) for pair in json.loads(peer.to_str())["model"]["merges"]]
    assert len(mine) > 80


def test_a_word_is_the_same_before_a_comma(text):
    spelt = [bytes(spelling) for spelling in text.spelling]
    assert not any(b < 128 and not chr(b).isalnum() for word in spelt for b in word[1:])
    comma, plain = text.encode("x glasses, x"), text.encode("x glasses x")
    assert comma.tolist()[:2] == plain.tolist()[:2] and spelt[plain[1]] == b" glasses"


@settings(max_examples=300, deadline=None)
@given(words=st.lists(st.text() | st.sampled_from([*HARD, *CAPTIONS]), max_size=4))
def test_ids_are_those_of_transformers(speaking, theirs, words):
    """But for what only a picture's characters are made of, and the names of special tokens."""
    caption = "".join(words)
    if any("\U000f0000" <= c <= "\U000fffff" for c in caption) or "<s>" in caption:
        return
    ids = speaking.encode_text(caption)
    assert theirs(caption, add_special_tokens=False)["input_ids"] == ids.tolist()
    assert speaking.decode_text(ids) == caption
    assert theirs.decode(ids.tolist()) == caption


@pytest.mark.parametrize("caption", [*HARD, CAPTIONS[0]])
def test_a_caption_and_a_picture_in_one_string(speaking, theirs, pictures, caption):
    stream = speaking.codec.encode(pictures[0])
    picture = "".join(map(speaking.character, speaking.alphabet.split(stream).tolist()))
    first = speaking.class_token(1)
    ids = [*speaking.encode_text(caption), first, *speaking.encode_stream(stream), speaking.eos]
    whole = f"{caption}<class_1>{picture}</s>"
    assert theirs(whole, add_special_tokens=False)["input_ids"] == ids
    assert theirs.decode(ids) == whole
    assert speaking.decode_stream(np.array(ids)) == stream
    assert speaking.decode_text(np.array(ids)) == caption


def test_the_vocabulary_in_order(speaking, theirs, tmp_path):
    tokens = len(speaking.spelling)
    assert (speaking.bos, speaking.eos, speaking.class_token(2)) == (tokens, tokens + 1, tokens + 4)
    assert speaking.encode_text("\0")[0] == speaking.first_text == tokens + 5
    assert speaking.vocab_size == len(theirs) == speaking.first_text + speaking.text.size
    assert (theirs.bos_token_id, theirs.eos_token_id) == (speaking.bos, speaking.eos)
    speaking.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == speaking.fingerprint and again.vocab_size == speaking.vocab_size
    assert (again.encode_text(CAPTIONS[3]) == speaking.encode_text(CAPTIONS[3])).all()
    mute = Tokenizer(speaking.codec, speaking.alphabet.name, speaking.merges, 3)
    assert mute.fingerprint != speaking.fingerprint
    with pytest.raises(InputError, match="'a heart' was given, but this checkpoint has no text"):
        mute.encode_text("a heart")
    with pytest.raises(InputError, match="is not UTF-8"):
        speaking.encode_text("caf\udce9")


@pytest.mark.parametrize("name", ["photos", "cifar10", "clips"])
def test_files_without_text_are_what_they_were(name):
    folder = shipped_checkpoint(name)
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.text is None
    assert tokenizer.to_hugging_face() == json.loads((folder / "tokenizer.json").read_text())


def test_damaged_files_are_refused(speaking, tmp_path):
    speaking.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    good = json.loads(file.read_text())
    pairs = good["model"]["merges"]
    first = len(speaking.merges)
    word = pairs[first][0] + pairs[first][1]

    def refuse(match, change):
        values = json.loads(json.dumps(good))
        change(values["model"])
        file.write_text(json.dumps(values))
        with pytest.raises(InputError, match=match):
            Tokenizer.load(tmp_path)

    refuse("repeats", lambda m: m["merges"].append(pairs[first]))
    refuse(f"merge {first} joins .*not there before it", lambda m: m["merges"].insert(
        first, [word, "<0x61>"]))  # fmt: skip
    refuse("not there before it", lambda m: m["merges"].append(["<0x61>", "\U000f0000"]))
    refuse("not there before it", lambda m: m["merges"].insert(0, ["\U000f0000", "<0x61>"]))
    refuse("not there before it", lambda m: m["merges"].append(["<s>", "<0x61>"]))
    refuse("vocabulary is not the one", lambda m: m["merges"].pop())
    refuse("vocabulary is not the one", lambda m: m["vocab"].pop("<0xFF>"))
    refuse("vocabulary is not the one", lambda m: m["vocab"].pop("<class_1>"))
    for value in (None, True, "x", -1, 0, 2**70):
        refuse("id of <0x00>|there before it|not the one", lambda m, v=value: m["vocab"].update(
            {"<0x00>": v}))  # fmt: skip

    def doubling(model):  # until one would spell 2**14 bytes
        token, number = "<0x61>", max(model["vocab"].values())
        for _ in range(14):
            model["merges"].append([token, token])
            token += token
            number += 1
            model["vocab"][token] = number

    refuse("spell more than", doubling)

    def together(model):  # none of them more than 2**13 bytes
        number = max(model["vocab"].values())
        pairs = [("<0x61>" * 2**power,) * 2 for power in range(12)]
        pairs += [("<0x61>" * 2**12, f"<0x{byte:02X}>") for byte in range(256)]
        for pair in pairs:
            number += 1
            model["merges"].append(pair)
            model["vocab"]["".join(pair)] = number

    refuse("spell more than", together)


@pytest.mark.parametrize("caption", [*HARD, CAPTIONS[0]])
def test_a_text_that_is_cut(text, caption):
    ids = text.encode(caption)
    for most in range(min(len(ids), 40)):
        cut = text.cut(caption, most)
        assert caption.startswith(cut) and len(text.encode(cut)) <= most
        whole = text.decode(ids[:most]).rstrip("\ufffd")
        assert cut == whole or len(text.encode(whole)) > most  # its last token held more
    assert text.cut(caption, len(ids)) == caption


def test_sizes():
    assert Text.train(["aaaa bbbb"], 256).size == 256
    assert Text.train(["ab", "ab", "ab"], 1024).size == 257  # nothing crosses from one to the next
    assert Text.train([], 300).size == 256
    for size in (255, 16385):
        with pytest.raises(InputError, match="text_vocab_size is"):
            Text.train(["a"], size)
    assert tidy("  a\tred\r\n heart\u00a0 \n") == "a red heart"


def engine_of(kind, config, weights):
    if kind == "cpu":
        return CpuEngine(config, weights)
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from jpeglm.generation.engine_cuda import GraphEngine
    from jpeglm.generation.engine_torch import TorchEngine

    model = hugging_face(config, weights)
    return {"torch": TorchEngine, "graph": GraphEngine}[kind](model)


@pytest.mark.parametrize("kind", ["cpu", "torch", "graph"])
@pytest.mark.parametrize("grammar", [True, False])
def test_no_word_and_no_class_once_the_picture_has_begun(speaking, pictures, kind, grammar):
    """Of a model that would write nothing else."""
    config, weights = random_llama(speaking.vocab_size, 700)
    rows = weights["lm_head.weight"]
    rows[speaking.eos + 1 :] += rows[speaking.first_text + 5] * 3
    engine = engine_of(kind, config, weights)
    head = np.concatenate([speaking.encode_text("a red heart"), [speaking.class_token(1)]])
    logits = engine.add([head])[0]
    assert logits.argmax() > speaking.eos
    engine.remove(np.arange(1))
    prefix = speaking.alphabet.prefix(speaking.codec.encode(pictures[0]), 2)
    constraint = Constraint(speaking)
    for prompt in (bare_prompt(head), make_prompt(speaking, prefix, head)):
        for sampling in (
            Sampling(1.0, grammar=grammar),
            Sampling(0.0, guidance=2.0, grammar=grammar),
        ):
            drawn, _ = draw_ids(engine, constraint, prompt, 2, sampling, 3, 600)
            assert all((ids <= speaking.eos).all() for ids in drawn)
            if grammar:
                assert all(ids[-1] == speaking.eos for ids in drawn)


def test_a_matcher_takes_none(speaking):
    matcher = Matcher(speaking)
    assert not matcher.allowed()[speaking.eos + 1 :].any()
    assert not matcher.accept(speaking.encode_text("a")[0])


@pytest.mark.parametrize("grammar", [True, False])
def test_guidance_is_against_nothing_at_all(speaking, pictures, grammar):
    """As mixing the logits of the two prompts by hand."""
    engine = CpuEngine(*random_llama(speaking.vocab_size, 700))
    constraint = Constraint(speaking)
    prefix = speaking.alphabet.prefix(speaking.codec.encode(pictures[0]), 2)
    head = np.concatenate([speaking.encode_text("a red heart"), [speaking.class_token(1)]])
    prompt = make_prompt(speaking, prefix, head)
    chooser = Sampling(0.0, guidance=3.0, grammar=grammar)
    (drawn,), _ = draw_ids(engine, constraint, prompt, 1, chooser)
    # Nothing holds a free sampler to the prompt's last symbols, so they are given as tokens.
    tail = [] if grammar else speaking.encode_symbols(prompt.forced).tolist()
    given, free = [[*ids, *tail] for ids in (prompt.ids, [speaking.bos, *prompt.ids[len(head) :]])]
    matcher = Matcher(constraint, prompt)
    for token in drawn[:40].tolist():
        engine.remove(np.arange(engine.sequences))
        with_, without = engine.add([np.array(given, np.int32), np.array(free, np.int32)])
        mixed = without + np.float32(3) * (with_ - without)
        own = np.arange(speaking.vocab_size)
        legal = matcher.allowed() if grammar else (own < speaking.bos) | (own == speaking.eos)
        assert token == np.where(legal, mixed, -np.inf).argmax()
        assert matcher.accept(token) or not grammar
        given.append(token)
        free.append(token)
