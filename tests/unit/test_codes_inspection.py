"""A picture of codes taken apart: vectors, distances and patches are the VQ-VAE's own."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jpeglm.checkpoint import Checkpoint
from jpeglm.codecs.vq import VqCodec, VqConfig
from jpeglm.config import InputError
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.generation.loading import load
from jpeglm.generation.model import Model
from jpeglm.inspection.codes import NEAREST, trace_codes
from jpeglm.tokenizer import Tokenizer

from .conftest import random_llama

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def network(pictures):
    """A VQ-VAE that has learnt for a moment: its codes are not all alike."""
    from jpeglm.models.autoencoder import to_tensor
    from jpeglm.models.vqvae import VqVae, VqVaeConfig

    torch.manual_seed(0)
    config = VqVaeConfig(codes=40, code_dim=5, channels=8, blocks=1, downsampling=4)
    model = VqVae(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    batch = to_tensor(np.stack([np.asarray(one.resize((32, 16))) for one in pictures]))
    losses = []
    for _ in range(60):
        loss = model.loss(batch)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    return model.eval()


@pytest.fixture(scope="module")
def model(network, pictures):
    from safetensors.torch import save

    config = VqConfig(32, 16, model=network.config.to_dict())
    codec = VqCodec(config, save(network.state_dict()))
    streams = [codec.encode(one) for one in pictures] * 3
    tokenizer = Tokenizer.train(streams, codec, "codes", 60)
    engine = CpuEngine(*random_llama(tokenizer.vocab_size, 100), threads=1)
    return Model(Checkpoint(Path(), {}, tokenizer, {}), engine)


def shown(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_a_patch_from_its_vector_to_the_nearest_code(model, network, pictures):
    told = json.loads(json.dumps(trace_codes(model, pictures[0]), allow_nan=False))
    picture = shown(told["picture"]["given"])
    x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        z = network.encoder(x)[0].flatten(1).T  # raster order
        lengths = torch.cdist(z, network.quantiser.codebook)
        codes = network.encode(x).flatten()
        drawn = network.decode(network.encode(x))[0]
    assert len(told["patches"]) == 8 * 4 and len(codes.unique()) > 3
    for number, patch in enumerate(told["patches"]):
        assert patch["code"] == int(codes[number]) == patch["nearest"][0][0]
        assert patch["vector"] == pytest.approx(z[number].tolist(), abs=1e-4)
        near, distances = zip(*patch["nearest"])
        best = lengths[number].sort().values[:NEAREST]
        assert list(distances) == pytest.approx(best.tolist(), abs=1e-3)
        assert len(set(near)) == NEAREST
        for code, length in patch["nearest"]:
            assert length == pytest.approx(float(lengths[number][code]), abs=1e-3)
            book = told["codes"][str(code)]["vector"]
            assert book == pytest.approx(network.quantiser.codebook[code].tolist(), abs=1e-4)
    theirs = ((drawn.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
    assert abs(shown(told["picture"]["decoded"]) - theirs).max() <= 1
    with torch.no_grad():
        code = told["patches"][5]["code"]
        alone = network.decode(torch.full((1, 3, 3), code))[0, :, 4:8, 4:8]
    alone = ((alone.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
    assert abs(shown(told["codes"][str(code)]["alone"]) - alone).max() <= 1


def test_tokens_and_bits_are_those_of_score(model, pictures):
    told = trace_codes(model, pictures[1])
    score = model.score_streams([model.codec.encode(pictures[1])])[0]
    assert [one["token"] for one in told["tokens"]] == score.ids.tolist()
    assert [one["bits"] for one in told["tokens"]] == pytest.approx(score.bits, abs=1e-3)
    assert [one["model"] for one in told["patches"]] == pytest.approx(score.of_units, abs=1e-2)
    patches = [place for one in told["tokens"] for place in one["patches"]]
    assert patches == list(range(32)) and told["tokens"][-1]["patches"] == []
    assert len(told["tokens"]) < 33, "some token spells several codes"
    for one in told["tokens"][:-1]:
        said = [told["patches"][place]["code"] for place in one["patches"]]
        assert told["names"][one["token"]].split(" · ") == [
            model.tokenizer.alphabet.symbol_name(code) for code in said
        ]


def test_other_models_say_so(model):
    with pytest.raises(InputError, match="give the checkpoint of one over the codes of a VQ-VAE"):
        trace_codes(load("photos"), Image.new("RGB", (9, 9)))
    with pytest.raises(InputError, match="the picture"):
        trace_codes(model, b"hello")
