"""Codecs whose streams are codes: the palette, a VQ-VAE of ours, one of diffusers'."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from jpeglm.codecs import make_codec, open_codec, save_codec
from jpeglm.codecs.pixels import PixelsCodec, PixelsConfig, learn_palette
from jpeglm.codecs.vq import VqCodec, VqConfig
from jpeglm.config import InputError, Sampling
from jpeglm.generation.drawing import draw_ids
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.matcher import Constraint, Prompt, make_prompt
from jpeglm.syntax import machine
from jpeglm.syntax.alphabet import Codes
from jpeglm.syntax.jpeg import codes_spec
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def palette(pictures):
    return learn_palette(pictures, 16, 16, 64)


@pytest.fixture(scope="module", params=["pixels", "vq"])
def codec(request, palette):
    if request.param == "pixels":
        return PixelsCodec(PixelsConfig(16, 8, 64), palette)
    from safetensors.torch import save

    from jpeglm.models.vqvae import VqVae, VqVaeConfig

    torch.manual_seed(0)
    config = VqVaeConfig(codes=300, code_dim=4, channels=8, blocks=1, downsampling=4)
    model = VqVae(config)
    return VqCodec(VqConfig(32, 16, model=config.to_dict()), save(model.state_dict()))


def test_codes_are_lossless_and_strict():
    small, large = Codes(256, 5), Codes(257, 5)
    codes = np.array([0, 255, 3, 4, 5])
    assert small.join(codes) == bytes(codes.tolist()) and len(large.join(codes)) == 10
    assert (large.split(large.join(codes)) == codes).all()
    with pytest.raises(InputError, match="has 10 bytes, this one 9"):
        large.split(b"\0" * 9)
    with pytest.raises(InputError, match="code 257 is none of the 257, at code 1"):
        large.split(np.array([0, 257, 0, 0, 0], "<u2").tobytes())
    assert len(large.join(np.array([999, -4]))) == 10  # a model's output may be anything
    assert large.read(b"\xff\xff\x01").tolist() == [256, 0, 0, 0, 0]


def test_grammar_counts_to_the_last_code():
    grammar = Codes(7, 3).grammar()
    state = grammar.start()
    for left in (3, 2, 1):
        assert grammar.shortest(state) == left and not grammar.complete(state)
        assert grammar.allowed(state).all() and len(grammar.allowed(state)) == 7
        assert not grammar.advance(state, 7) and grammar.advance(state, 6)
    assert grammar.complete(state) and not grammar.allowed(state).any()


def test_pixels_are_the_nearest_colours(palette, pictures):
    codec = PixelsCodec(PixelsConfig(16, 8, 64), palette)
    stream = codec.encode(pictures[0])
    image = pictures[0].resize((16, 8), Image.Resampling.LANCZOS, box=None)
    shown = np.asarray(codec.decode(stream)).astype(int)
    fitted = np.asarray(Image.fromarray(np.asarray(image)))
    assert shown.shape == fitted.shape == (8, 16, 3)
    # Every pixel is in the palette, and no other colour of it is nearer to what was coded.
    from jpeglm.codecs.images import fit_image

    pixels = np.asarray(fit_image(pictures[0], 16, 8, "crop")).astype(int).reshape(-1, 1, 3)
    distance = np.square(pixels - palette.astype(int)[None]).sum(2)
    reached = np.square(pixels[:, 0] - shown.reshape(-1, 3)).sum(1)
    assert (reached == distance.min(1)).all()


def test_palette_is_repeatable_and_fills_up(pictures):
    again = learn_palette(pictures, 16, 16, 64)
    assert (again == learn_palette(pictures, 16, 16, 64)).all() and len(again) == 64
    flat = learn_palette([Image.new("RGB", (8, 8), (9, 9, 9))], 8, 8, 16)
    assert len(np.unique(flat, axis=0)) == 16


def test_round_trip_and_cut(codec, pictures):
    stream = codec.encode(pictures[0])
    codes = codec.alphabet("codes").split(stream)
    assert len(codes) == codec.units == codec.grid[0] * codec.grid[1]
    assert codec.encode(pictures[0]) == stream
    assert codec.decode(stream).size == (codec.config.width, codec.config.height)
    cut = codec.alphabet("codes").split(codec.cut(stream, 5))
    assert (cut[:5] == codes[:5]).all() and len(cut) == codec.units
    with Image.open(io.BytesIO(codec.wrap(stream))) as image:
        assert (np.asarray(image) == np.asarray(codec.decode(stream))).all()
    for damaged in (b"", b"\xff" * 3, stream[:7], stream + b"x"):
        assert codec.show(damaged).size == (codec.config.width, codec.config.height)
        with pytest.raises(InputError, match="code"):
            codec.decode(damaged)


def test_weights_travel_with_the_codec(codec, tmp_path, pictures):
    save_codec(codec, tmp_path / "a")
    again = open_codec(tmp_path / "a")
    assert again.fingerprint == codec.fingerprint
    assert again.encode(pictures[1]) == codec.encode(pictures[1])
    with pytest.raises(InputError, match=r"codec\.safetensors, the weights of the"):
        make_codec(codec.to_dict(), tmp_path)
    other = PixelsCodec(PixelsConfig(8, 8, 3), np.arange(9, dtype=np.uint8).reshape(3, 3))
    (tmp_path / "a" / "codec.safetensors").write_bytes(other.weights)
    with pytest.raises(InputError, match="do not belong together"):
        open_codec(tmp_path / "a")


def test_tokens_are_codes_and_completions_keep_the_prompt(codec, pictures, tmp_path):
    streams = [codec.encode(picture) for picture in pictures]
    tokenizer = Tokenizer.train(streams, codec, vocab_size=codec.size + 2)
    assert not len(tokenizer.merges)
    assert (tokenizer.encode_stream(streams[0]) == codec.alphabet("codes").split(streams[0])).all()
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint
    merged = Tokenizer.train(streams, codec, vocab_size=codec.size + 12)
    for used in (tokenizer, merged):
        engine = CpuEngine(*random_llama(used.vocab_size, codec.units + 2))
        prefix = used.alphabet.prefix(streams[0], codec.units // 2)
        prompt = make_prompt(used, prefix, used.bos)
        drawn, bits = draw_ids(engine, Constraint(used), prompt, 3, Sampling())
        for ids in drawn:
            codes = used.decode(np.concatenate([prompt.ids, ids]))
            assert len(codes) == codec.units and ids[-1] == used.eos
            assert (codes[: codec.units // 2] == prefix.symbols).all()
        assert min(bits) > 0
        new, _ = draw_ids(
            engine,
            Constraint(used),
            Prompt(np.array([used.bos]), prefix.symbols[:0]),
            2,
            Sampling(),
        )
        assert all(len(used.decode(ids)) == codec.units for ids in new)


def test_a_diffusers_vqmodel_gives_diffusers_codes(tmp_path, pictures):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.VQModel(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, num_vq_embeddings=64,
        norm_num_groups=8,
    ).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path)
    codec = open_codec(tmp_path, 32, 16)
    assert codec.units == 16 * 8 and codec.size == 64
    image = pictures[0].resize((32, 16))
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latents = theirs.encode(x).latents
        _, _, (_, _, indices) = theirs.quantize(latents)
        expected = theirs.decode(latents).sample[0]
    codes = codec.alphabet("codes").split(codec.encode(image))
    assert (codes == indices.flatten().numpy()).all() and len(np.unique(codes)) > 1
    shown = ((expected.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(np.asarray(codec.decode(codec.encode(image))) - shown).max() <= 1
    save_codec(codec, tmp_path / "ours")
    assert open_codec(tmp_path / "ours").fingerprint == codec.fingerprint


def test_prepared_data_and_checkpoints_are_codec_folders(palette, picture_files, tmp_path):
    pytest.importorskip("pyarrow")
    from jpeglm.data.open import Dataset
    from jpeglm.data.prepare import prepare
    from jpeglm.data.settings import PrepareConfig

    codec = PixelsCodec(PixelsConfig(16, 8, 64), palette)
    prepare(picture_files[0].parent, tmp_path / "data", codec, PrepareConfig(validation=0.2))
    data = Dataset(tmp_path / "data")
    assert data.codec.fingerprint == codec.fingerprint
    streams = [stream for _, stream, *_ in data.streams()]
    assert streams == [codec.encode(Image.open(file)) for file in picture_files]
    Tokenizer.train(streams, data.codec, vocab_size=66).save(tmp_path / "tokenizer")
    for folder in ("data", "tokenizer"):
        again = open_codec(tmp_path / folder, 24, fit="pad")
        assert (again.config.width, again.config.height, again.config.fit) == (24, 24, "pad")
        assert (again.palette == codec.palette).all()
    with pytest.raises(InputError, match=r"it has no codec\.json"):
        open_codec(tmp_path)


def test_a_large_alphabet_without_merges_needs_no_table_of_pairs():
    """65,536 codes: a table of their pairs would take 17 GB."""
    codec = PixelsCodec(PixelsConfig(8, 8, colors=65536), np.zeros((65536, 3), np.float32))
    codes = np.arange(65536 - 64, 65536, dtype="<u2")
    tracemalloc.start()
    tokenizer = Tokenizer.train([codes.tobytes()], codec, vocab_size=65538)
    assert tokenizer.encode_stream(codes.tobytes()).tolist() == codes.tolist()
    prompt = make_prompt(tokenizer, tokenizer.alphabet.prefix(codes.tobytes(), 9), tokenizer.bos)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.concatenate([prompt.ids[1:], prompt.forced]).tolist() == codes[:9].tolist()
    assert peak < 200_000_000


def test_a_masks_key_says_how_many_codes_are_left():
    """As far as the longest token reaches: tokens that go past the end are illegal."""
    spec, tokens = codes_spec(4, 6), [(0,), (1, 2), (3, 3, 3)]
    reach, swing = machine.limits(spec, tokens)
    state, keys = machine.start_state(spec), []
    for left in range(6, 0, -1):
        for token in tokens:
            trial = state.copy()
            taken = all(machine.step(spec, trial, symbol) for symbol in token)
            assert taken == (len(token) <= left)
        keys.append(int(machine.key(spec, state, reach, swing)))
        assert machine.step(spec, state, 0)
    assert len({*keys[:4]}) == 1 and len({*keys[3:]}) == 3
