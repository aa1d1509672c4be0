"""Both engines against Hugging Face's Llama without a cache."""

import numpy as np
import pytest

from jpeglm.config import InputError
from jpeglm.generation.engine_cpu import CpuEngine

from .conftest import random_llama

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHAPES = {
    "grouped": {},
    "tied": {"tie_word_embeddings": True},
    "all-heads": {"num_key_value_heads": 4},
    "wide-head": {"head_dim": 16, "num_key_value_heads": 1},
}


def hugging_face(config, weights):
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    return model


def make(kind, config, weights):
    if kind == "cpu":
        return CpuEngine(config, weights)
    from jpeglm.generation.engine_torch import TorchEngine

    return TorchEngine(hugging_face(config, weights))


@pytest.mark.parametrize("kind", ["cpu", "torch"])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_agree_with_transformers(kind, shape):
    config, weights = random_llama(90, 300, **SHAPES[shape])
    model = hugging_face(config, weights)
    engine = make(kind, config, weights)
    rng = np.random.default_rng(1)
    sequences = [list(rng.integers(0, 90, n)) for n in (3, 80, 3, 17)]
    sequences[2] = list(sequences[0])
    logits = engine.start([np.array(s) for s in sequences])

    def compare():
        for row, sequence in zip(logits, sequences, strict=True):
            with torch.no_grad():
                expected = model(torch.tensor([sequence])).logits[0, -1].numpy()
            assert np.abs(expected).max() > 1
            np.testing.assert_allclose(row, expected, atol=1e-4)

    compare()
    for count in range(200):
        ids = rng.integers(0, 90, len(sequences))
        logits = engine.step(ids)
        for sequence, token in zip(sequences, ids):
            sequence.append(token)
        if count % 40 == 0:
            compare()
        if count == 60:
            engine.keep(np.array([3, 1]))
            sequences = [sequences[3], sequences[1]]
    compare()


def test_logits_do_not_depend_on_the_batch_nor_on_prefill():
    config, weights = random_llama(90, 300)
    engine = CpuEngine(config, weights, threads=2)
    rng = np.random.default_rng(2)
    sequences = rng.integers(0, 90, (5, 150))
    engine.start(list(sequences[:, :1]))
    for place in range(1, 150):
        together = engine.step(sequences[:, place])
    for row, sequence in zip(together, sequences):
        assert (engine.start([sequence])[0] == row).all()


@pytest.mark.parametrize(("precision", "close"), [("bfloat16", 0.1), ("int8", 0.1)])
def test_smaller_weights_stay_close(precision, close):
    config, weights = random_llama(90, 100)
    prompt = [np.arange(40)]
    exact = CpuEngine(config, weights).start(prompt)[0]
    engine = CpuEngine(config, weights, precision)
    difference = np.abs(engine.start(prompt)[0] - exact)
    assert 0 < difference.mean() < close * exact.std()
    assert engine.weight_bytes < 0.6 * CpuEngine(config, weights).weight_bytes


def test_bfloat16_weights_are_taken_as_they_are():
    config, weights = random_llama(90, 100)
    model = hugging_face(config, weights).to(torch.bfloat16)
    bits = {name: tensor.view(torch.uint16).numpy() for name, tensor in model.state_dict().items()}
    rounded = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    prompt = [np.arange(30)]
    expected = CpuEngine(config, rounded).start(prompt)
    assert (CpuEngine(config, bits).start(prompt) == expected).all()
    # Another kernel, so the sums may be taken in another order.
    kept = CpuEngine(config, bits, "bfloat16").start(prompt)
    np.testing.assert_allclose(kept, expected, atol=2e-5)


def test_context_is_enforced_and_unknown_models_refused():
    config, weights = random_llama(90, 20)
    engine = CpuEngine(config, weights)
    with pytest.raises(InputError, match="context"):
        engine.start([np.arange(21)])
    engine.start([np.arange(20)])
    with pytest.raises(InputError, match="context"):
        engine.step(np.array([1]))
    for change in (
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
    ):
        with pytest.raises(InputError):
            CpuEngine(config | change, weights)
    with pytest.raises(InputError, match=r"model\.norm\.weight"):
        CpuEngine(config, {k: v for k, v in weights.items() if k != "model.norm.weight"})
    with pytest.raises(InputError, match="precision"):
        CpuEngine(config, weights, "float8")
