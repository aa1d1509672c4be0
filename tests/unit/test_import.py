"""Importing against real sentencepiece vocabularies and real transformers' Llamas and pickles."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import load_checkpoint
from jpeglm.codecs import JpegCodec
from jpeglm.config import InputError, JpegConfig
from jpeglm.files import read_json
from jpeglm.integrations import importing
from jpeglm.integrations.importing import import_model
from jpeglm.integrations.sentencepiece import probes, read_vocabulary
from jpeglm.tokenizer import Tokenizer
from tests.unit.conftest import hugging_face, random_llama, with_biases

torch = pytest.importorskip("torch")
sentencepiece = pytest.importorskip("sentencepiece")

CODEC = JpegCodec(JpegConfig(64, 64, restart_interval=1))
SETTINGS = {"width": 64, "height": 64}


def text_of(stream):
    return "".join(chr(0x2800 + byte) for byte in stream)


def streams_of(pictures, count=40):
    """Crops of photographs, as many of each as come to `count`."""
    rng, found = np.random.default_rng(1), []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        left, top = (int(rng.integers(0, max(1, side - 40))) for side in picture.size)
        side = int(rng.integers(30, min(picture.size) + 1))
        found.append(CODEC.encode(picture.crop((left, top, left + side, top + side))))
    return found


def learn(folder, streams, pieces=320, **options):
    """A real `tokenizer.model`, whose every byte has a piece, in `folder`."""
    everything = "".join(chr(0x2800 + byte) for byte in range(256))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([everything, *map(text_of, streams)]),
        model_prefix=str(folder / "tokenizer"),
        **{
            "model_type": "bpe",
            "vocab_size": pieces,
            "character_coverage": 1.0,
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "max_sentence_length": 1 << 20,
            "minloglevel": 2,
            **options,
        },
    )
    (folder / "tokenizer.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def write_llama(folder, vocabulary, dtype, safe=False, shards=None, **changes):
    """A Llama of random weights as transformers saves it; pickled as the authors' is."""
    from transformers import LlamaForCausalLM

    config, weights = random_llama(vocabulary, 700, **changes)
    model = hugging_face(config, with_biases(config, weights)).to(dtype)
    model.config.bos_token_id, model.config.eos_token_id = 1, 2
    model.save_pretrained(folder, max_shard_size=shards or "10GB")
    # `to` has rounded its rotary frequencies as well, which no loaded model has.
    model = LlamaForCausalLM.from_pretrained(folder, dtype="auto")
    if safe:
        return model
    # transformers 5 writes no pickles any more: those of before, with their index.
    state = model.state_dict()
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    if not shards:
        torch.save(state, folder / "pytorch_model.bin")
        return model
    names = list(state)
    thirds = [names[k::3] for k in range(3)]
    files = [f"pytorch_model-{k:05d}-of-00003.bin" for k in (1, 2, 3)]
    for file, third in zip(files, thirds):
        torch.save({name: state[name].clone() for name in third}, folder / file)
    places = {name: file for file, third in zip(files, thirds) for name in third}
    index = {"metadata": {}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return model


@pytest.fixture(scope="module")
def streams(pictures):
    return streams_of(pictures, 150)


@pytest.fixture(scope="module", params=[False, True], ids=["bare", "prefixed"])
def released(request, tmp_path_factory, streams):
    """(folder, sentencepiece, Llama) in the authors' form, with add_dummy_prefix and without."""
    folder = tmp_path_factory.mktemp("released")
    theirs = learn(folder, streams[:60], add_dummy_prefix=request.param)
    assert theirs.vocab_size() == 320
    return folder, theirs, write_llama(folder, 320, torch.bfloat16)


@pytest.fixture(scope="module")
def imported(released, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "model"
    return import_model(str(released[0]), out, SETTINGS), load_checkpoint(out)


def test_ids_are_sentencepieces(released, imported, streams):
    """Streams that the vocabulary was not learnt from, and noise of every quality of repetition."""
    _, theirs, _ = released
    found, checkpoint = imported
    ours = checkpoint.tokenizer
    assert found.vocabulary == ours.vocab_size == 319 and found.dropped == ["<unk>"]
    rows = read_vocabulary(released[0] / "tokenizer.model", CODEC).rows
    assert sorted(rows.tolist()) == list(range(1, 320))  # all but unk
    assert rows[[ours.bos, ours.eos]].tolist() == [theirs.bos_id(), theirs.eos_id()]
    merged = 0
    for stream in [*streams[60:], *probes(CODEC)]:
        ids = ours.encode_stream(stream)
        assert rows[ids].tolist() == theirs.encode(text_of(stream))
        assert ours.decode_stream(ids) == stream
        merged += len(stream) - len(ids)
    assert merged > 100


def test_random_bytes_too(released, imported):
    """Runs of few bytes, where pairs that make one piece overlap."""
    _, theirs, _ = released
    ours = imported[1].tokenizer
    rows = read_vocabulary(released[0] / "tokenizer.model", CODEC).rows
    rng, bare = np.random.default_rng(5), ours.alphabet.size == 256
    for kinds in (2, 3, 6, 40, 256):
        some = rng.integers(0, 256, kinds)
        for _ in range(60):
            data = some[rng.integers(0, kinds, 400)].astype(np.uint8)
            symbols = data.astype(np.int32) if bare else np.append(np.int32(256), data)
            ids = ours.encode_symbols(symbols.astype(np.int32))
            assert rows[ids].tolist() == theirs.encode(text_of(data.tolist()))


def test_logits_are_the_source_s(released, imported, streams):
    """To the last bit, of a stock transformers' Llama with the imported folder."""
    from transformers import AutoModelForCausalLM

    folder, theirs, source = released
    checkpoint = imported[1]
    ours = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype="auto")
    assert ours.dtype == torch.bfloat16
    rows = read_vocabulary(folder / "tokenizer.model", CODEC).rows
    for stream in streams[60:64]:
        ids = np.append(checkpoint.tokenizer.bos, checkpoint.tokenizer.encode_stream(stream))[:600]
        their_ids = [theirs.bos_id(), *theirs.encode(text_of(stream))][:600]
        with torch.no_grad():
            mine = ours(torch.tensor(ids.astype(np.int64))[None]).logits[0]
            known = source(torch.tensor(their_ids)[None]).logits[0]
        assert torch.equal(mine, known[:, torch.from_numpy(rows)])
        assert not torch.equal(mine, known[:, 1:])  # in another order


def test_the_checkpoint_draws(imported):
    """Whole files, through everything that a checkpoint of ours goes through."""
    from jpeglm import load

    model = load(imported[1].folder)
    drawn = model.generate(2, seed=3)
    codec = model.tokenizer.codec
    assert all(codec.check(file).valid for file in drawn.files)
    assert model.checkpoint.generation["top_k"] == 40
    text = (imported[1].folder / "README.md").read_text()
    assert "<unk>" in text and text.startswith("---\nlicense: unknown\n")


FORMS = {
    "pickle": {},
    "pickled shards": {"shards": "20KB"},
    "safetensors": {"safe": True},
    "safetensors in shards": {"safe": True, "shards": "20KB"},
    "biases": {"safe": True, "attention_bias": True, "mlp_bias": True},
    "tied": {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_stock_llamas_with_our_tokenizer(form, dtype, tmp_path, streams):
    """Any form of weights, in its own type, with more rows than ids (as padded vocabularies)."""
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.train(streams[:20], CODEC, "bytes", 300)
    tokenizer.save(tmp_path / "tokenizer")
    size = tokenizer.vocab_size
    source = write_llama(tmp_path / "source", size + 6, getattr(torch, dtype), **FORMS[form])
    out = tmp_path / "out"
    found = import_model(str(tmp_path / "source"), out, tokenizer=tmp_path / "tokenizer")
    assert found.dtype == dtype and found.dropped == ["6 rows behind them"]
    ours = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    ids = torch.from_numpy(np.arange(50) * 3 % size)[None]
    with torch.no_grad():
        mine, known = ours(ids).logits, source(ids).logits
    assert torch.equal(mine, known[..., :size])
    # Again, by its own tokenizer; and nothing changes.
    again = import_model(str(out), tmp_path / "again")
    assert again.dropped == [] and again.dtype == dtype
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


# Refusals


def refused(words, *arguments, **options):
    with pytest.raises(InputError) as error:
        import_model(*arguments, **options)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


@pytest.fixture
def source(tmp_path, streams):
    """A small folder in the authors' form, to break."""
    folder = tmp_path / "source"
    folder.mkdir()
    learn(folder, streams[:20], 300)
    write_llama(folder, 300, torch.float32, shards="20KB")
    return folder


def test_a_shard_that_lacks_is_named(source, tmp_path):
    (source / "pytorch_model-00002-of-00003.bin").unlink()
    refused(["pytorch_model-00002-of-00003.bin", "lacks"], str(source), tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_shard_that_is_cut_is_named(source, tmp_path):
    file = source / "pytorch_model-00002-of-00003.bin"
    file.write_bytes(file.read_bytes()[:-200])
    refused([file.name, "complete"], str(source), tmp_path / "out", SETTINGS)


class Harm:
    """What a pickle can do."""

    def __reduce__(self):
        return (open, ("ran.txt", "w"))


def test_pickles_are_never_run(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model.norm.weight": Harm()}, source / "pytorch_model-00001-of-00003.bin")
    refused(["more than tensors"], str(source), tmp_path / "out", SETTINGS)
    assert not (tmp_path / "ran.txt").exists()


@pytest.mark.parametrize(
    "damage", [b"\x80\x04junk", b"", b"PK\x03\x04", b"\x80\x02}q", b"\x80\x04K"]
)
def test_files_that_are_no_pickles(source, tmp_path, damage):
    file = source / "pytorch_model-00001-of-00003.bin"
    for data in (damage, damage + bytes(50), damage + b"\xff" * 50):
        file.write_bytes(data)
        refused([file.name], str(source), tmp_path / "out", SETTINGS)


@pytest.mark.parametrize("licence", ["a\nb: c", "cc: by", "[mit", "", "#x", "'mit'"])
def test_licences_that_would_break_a_card(source, tmp_path, licence):
    with pytest.raises(InputError, match="the licence is"):
        import_model(str(source), tmp_path / "out", SETTINGS, None, licence)


def test_a_source_whose_name_is_no_utf_8(source, tmp_path):
    other, out = tmp_path / os.fsdecode(b"caf\xe9"), tmp_path / "ours"
    source.rename(other)
    refused(["caf\\xe9", "no UTF-8; rename it"], str(other), tmp_path / "out", SETTINGS)
    other.rename(source)
    import_model(str(source), out, SETTINGS)  # as safetensors
    out.rename(other)
    import_model(str(other), tmp_path / "out")
    assert "\n# caf\\xe9\n" in (tmp_path / "out" / "README.md").read_text()


def test_values_that_are_not_finite(source, tmp_path):
    for file in source.glob("*.bin"):
        state = torch.load(file, weights_only=True)
        for tensor in state.values():
            tensor.view(-1)[-1] = float("nan")
        torch.save(state, file)
    refused(["not finite"], str(source), tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_type": "char"}, ["not a BPE model"]),
        ({"byte_fallback": True, "vocab_size": 560}, ["type 6"]),
        ({"user_defined_symbols": [text_of(b"\xff\xd8")]}, ["user-defined"]),
        ({"normalization_rule_name": "identity", "bos_id": -1}, ["no BOS"]),
    ],
    ids=["characters", "bytes", "user-defined", "no BOS"],
)
def test_other_vocabularies_are_refused(source, tmp_path, streams, options, words):
    learn(source, streams[:20], 300, **options)
    refused([*words, "tokenizer.model"], str(source), tmp_path / "out", SETTINGS)


def edited(file, edit):
    """Write a model file again, with its normal pieces changed by `edit`."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(file.read_bytes())
    edit(model, [piece for piece in model.pieces if piece.type == 1])
    file.write_bytes(model.SerializeToString())


def all_equal(model, pieces):
    for piece in pieces:
        piece.score = 0.0


def no_byte(model, pieces):
    next(piece for piece in pieces if piece.piece == text_of(b"\x41")).piece = "A"


def no_halves(model, pieces):
    next(piece for piece in pieces if len(piece.piece) > 2).score = 1.0


def a_prefix(model, pieces):
    model.normalizer_spec.add_dummy_prefix = True


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (all_equal, ["other pieces"]),  # what scores alone cannot tell, the probes do
        (no_byte, ["no piece for 1 of the 256 bytes", "41"]),
        (no_halves, ["no two pieces of higher score"]),
        (a_prefix, ["before every text", "no piece"]),
    ],
)
def test_vocabularies_that_no_merges_make(source, tmp_path, edit, words):
    edited(source / "tokenizer.model", edit)
    refused([*words, "tokenizer.model"], str(source), tmp_path / "out", SETTINGS)


def test_files_that_do_not_belong_together(source, tmp_path, streams):
    for vocabulary in (320, 301):  # the model has 300
        learn(source, streams[:20], vocabulary)
        words = [f"piece {vocabulary - 1},", "300", "belong"]
        refused(words, str(source), tmp_path / "out", SETTINGS)
    (source / "tokenizer.model").write_bytes(b"no model")
    refused(["not a sentencepiece model"], str(source), tmp_path / "out", SETTINGS)
    (source / "tokenizer.model").unlink()
    refused(["--tokenizer"], str(source), tmp_path / "out", SETTINGS)
    refused(["no folder", "hf:"], str(tmp_path / "gone"), tmp_path / "out")
    refused(["hf:"], "hf:name", tmp_path / "out")


def test_settings_of_a_tokenizer_of_ours_stand(source, tmp_path, streams):
    Tokenizer.train(streams[:20], CODEC, "bytes", 290).save(tmp_path / "ours")
    refused(["width"], str(source), tmp_path / "out", SETTINGS, tmp_path / "ours")


def test_other_settings_than_the_pictures_are_the_users_to_give(source, tmp_path):
    """Nothing in the files says them, but nothing that is written lies about them."""
    import_model(str(source), tmp_path / "out", {"width": 32, "height": 48})
    assert read_json(tmp_path / "out" / "codec.json")["codec"]["height"] == 48


def test_nothing_of_the_user_s_is_replaced(source, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    refused(["notes.txt"], str(source), out, SETTINGS)
    refused(["input"], str(source), source, SETTINGS)
    import_model(str(source), tmp_path / "out", SETTINGS)
    import_model(str(source), tmp_path / "out", SETTINGS)  # its own it does


KILLED = """
import os, sys
from jpeglm.integrations import importing
from jpeglm.integrations.weights import ForeignWeights
whole = ForeignWeights.__iter__
def some(self):
    for number, pair in enumerate(whole(self)):
        if number == 5:
            os._exit(9)
        yield pair
ForeignWeights.__iter__ = some
importing.import_model(sys.argv[1], importing.Path(sys.argv[2]), {"width": 64, "height": 64})
"""


def test_an_import_that_is_killed_leaves_no_checkpoint(source, tmp_path):
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(source), str(out)], check=False)
    assert ended.returncode == 9 and not out.exists()
    assert list(tmp_path.glob(".out.*"))  # half of it, hidden
    import_model(str(source), out, SETTINGS)
    assert not list(tmp_path.glob(".out.*"))
    load_checkpoint(out)


def test_what_cannot_be_opened_is_not_left(source, tmp_path, monkeypatch):
    """A fault of ours, or of the disk."""
    real = importing.write_around

    def cut(draft, *given):
        real(draft, *given)
        os.truncate(draft / "tokenizer.json", 10)

    monkeypatch.setattr(importing, "write_around", cut)
    refused([str(tmp_path / "out/tokenizer.json")], str(source), tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_vq_models_are_used_as_they_lie(tmp_path):
    (tmp_path / "vq").mkdir()
    (tmp_path / "vq" / "config.json").write_text('{"_class_name": "VQModel"}')
    refused(["--codec-dir"], str(tmp_path / "vq"), tmp_path / "out")


def test_the_command(jpeglm, source, tmp_path):
    told = jpeglm.told(
        "import", source, "--out", "out", "--size", "64", "--license", "mit", cwd=tmp_path
    )
    assert told["vocabulary"] == 299 and told["dropped"] == ["<unk>"]
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text()
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    told = jpeglm.told("complete", "photo.png", "--checkpoint", "out", "-n", 1, cwd=tmp_path)
    assert told["pictures"] == 1
