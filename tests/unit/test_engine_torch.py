"""The torch engine against the same model without a cache."""

import subprocess
import sys

import numpy as np
import pytest

from jpeglm.config import InputError

from .conftest import begin, hugging_face, keep, random_llama

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices on several threads wait for each other where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_model(**changes):
    config, weights = random_llama(90, 260, **changes)
    return hugging_face(config, weights)


def make_engine(model, **options):
    from jpeglm.generation.engine_torch import TorchEngine

    return TorchEngine(model, **options)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lengths", [(3, 80, 3, 17, 1), (9, 9, 9, 9, 9)])
def test_logits_agree_with_a_forward_without_cache(lengths, attention):
    model = make_model(tie_word_embeddings=attention == "eager")
    model.set_attn_implementation(attention)
    engine = make_engine(model)
    rng = np.random.default_rng(1)
    sequences = [rng.integers(0, 90, n) for n in lengths]
    sequences[2] = sequences[0].copy()
    logits = begin(engine, sequences)

    def compare():
        assert logits.dtype == np.float32
        for row, sequence in zip(logits, sequences, strict=True):
            with torch.no_grad():
                expected = model(torch.from_numpy(sequence)[None]).logits[0, -1].numpy()
            assert np.abs(expected).max() > 1
            np.testing.assert_allclose(row, expected, atol=1e-4)

    compare()
    for leave in ([0, 1, 2, 4], [1, 3], [1]):
        keep(engine, leave)
        sequences = [sequences[row] for row in leave]
        for _ in range(12):
            ids = rng.integers(0, 90, len(sequences))
            logits = engine.step(ids)
            sequences = [np.append(s, token) for s, token in zip(sequences, ids)]
        compare()


def test_equal_prompts_are_computed_once():
    model = make_model()
    rows = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    engine = make_engine(model)
    prompts = [np.arange(7), np.arange(5), np.arange(7), np.arange(7)]
    logits = begin(engine, prompts)
    assert rows == [2] and logits.shape == (4, 90)
    assert (logits[0] == logits[2]).all() and (logits[0] != logits[1]).any()
    assert engine.step(np.arange(4)).shape == (4, 90)


def test_context_is_that_of_the_longest_sequence():
    engine = make_engine(make_model(), max_length=20)
    with pytest.raises(InputError, match="context"):
        begin(engine, [np.arange(21)])
    begin(engine, [np.arange(20), np.arange(4)])
    with pytest.raises(InputError, match="context"):
        engine.step(np.array([1, 1]))
    keep(engine, [1])
    for _ in range(16):
        engine.step(np.array([1]))
    with pytest.raises(InputError, match="context"):
        engine.step(np.array([1]))


def test_from_a_folder(tmp_path):
    from jpeglm.generation.engine_torch import TorchEngine

    model = make_model()
    model.save_pretrained(tmp_path / "whole")
    prompt = [np.arange(12)]
    expected = begin(make_engine(model), prompt)
    engine = TorchEngine.from_checkpoint(tmp_path / "whole")
    np.testing.assert_allclose(begin(engine, prompt), expected, atol=1e-6)
    rounded = begin(TorchEngine.from_checkpoint(tmp_path / "whole", precision="bfloat16"), prompt)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - expected).mean() < 0.1 * expected.std()
    with pytest.raises(InputError, match="precision"):
        TorchEngine.from_checkpoint(tmp_path / "whole", precision="int8")
    with pytest.raises(InputError, match="device"):
        TorchEngine.from_checkpoint(tmp_path / "whole", device="no-such-device")
    with pytest.raises(InputError, match="empty"):
        TorchEngine.from_checkpoint(tmp_path / "empty")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-3), ("bfloat16", 0.5)])
def test_a_cuda_device_agrees_with_the_cpu(dtype, close):
    prompts = [np.arange(30), np.arange(7)]
    expected = begin(make_engine(make_model()), prompts)
    model = make_model().to("cuda", getattr(torch, dtype))
    np.testing.assert_allclose(begin(make_engine(model), prompts), expected, atol=close)


def test_it_imports_no_numba():
    code = "import sys, jpeglm.generation.engine_torch; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
