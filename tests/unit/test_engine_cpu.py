"""The numba engine against Hugging Face's Llama, and against itself."""

import subprocess
import sys

import numpy as np
import pytest

from jpeglm.config import InputError
from jpeglm.generation import engine_cpu, forward, matmul, threads
from jpeglm.generation.engine_cpu import CpuEngine
from jpeglm.kernels import njit

from .conftest import begin, keep, random_llama

SHAPES = {
    "grouped": {},
    "tied": {"tie_word_embeddings": True},
    "all-heads": {"num_key_value_heads": 4},
    "odd-widths": {"head_dim": 18, "num_key_value_heads": 1, "intermediate_size": 53},
    "two-panels": {"head_dim": 80, "num_attention_heads": 2, "rope_parameters": None},
}


def every_logit(engine, sequences, prompt):
    """float32 [B, length - prompt + 1, V]: the rows' logits from their prompt's end on."""
    logits = [begin(engine, list(sequences[:, :prompt])).copy()]
    logits += [engine.step(sequences[:, i]).copy() for i in range(prompt, sequences.shape[1])]
    return np.stack(logits, axis=1)


def in_transformers(config, weights):
    """The same model, Hugging Face's."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    return model


@pytest.mark.parametrize("shape", SHAPES)
def test_every_logit_agrees_with_transformers(shape):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    config, weights = random_llama(90, 400, **SHAPES[shape])
    if config["rope_parameters"] is None:  # as transformers 4 wrote it
        del config["rope_parameters"]
        config["rope_theta"] = 500000.0
    model = in_transformers(config, weights)
    # Longer than one panel of keys, than one part of a prefill, and than the first cache.
    sequences = np.random.default_rng(1).integers(0, 90, (3, 330))
    with torch.no_grad():
        expected = model(torch.from_numpy(sequences)).logits.numpy()
    assert np.abs(expected).max() > 1
    for prompt in (1, 130):
        logits = every_logit(CpuEngine(config, weights), sequences, prompt)
        np.testing.assert_allclose(logits, expected[:, prompt - 1 :], atol=1e-4)


def test_a_sequence_is_the_same_to_the_bit_in_any_company():
    config, weights = random_llama(90, 300)
    sequences = np.random.default_rng(2).integers(0, 90, (13, 90))
    together = every_logit(CpuEngine(config, weights, threads=3), sequences, 1)
    engine = CpuEngine(config, weights, threads=1)
    for row in (0, 5, 12):
        for prompt in (1, 70):
            alone = every_logit(engine, sequences[row : row + 1], prompt)[0]
            assert (alone == together[row, prompt - 1 :]).all()
    assert (every_logit(engine, sequences[3:6], 1) == together[3:6]).all()


WIDE = {
    "hidden_size": 256, "intermediate_size": 320, "num_attention_heads": 4, "head_dim": 64,
    "num_key_value_heads": 2,
}  # fmt: skip
"""So wide that its products, and attention from some 130 positions on, are shared by threads."""


@njit(nogil=True)
def _claim_and_mark_late(board):
    """A helper that has lost its core: claims chunks, computes none, marks them for a job before,
    where it may wipe out what the leader has marked."""
    while True:
        job, chunk = threads.next_chunk(board)
        if job < 0:
            break
        threads.mark(board, job - 1, chunk, 1)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_threads_share_a_matrix_and_wait_for_nobody(precision, monkeypatch):
    config, weights = random_llama(300, 400, **WIDE)
    weights = {name: w / 4 if w.ndim == 2 else w for name, w in weights.items()}
    sequences = np.random.default_rng(7).integers(0, 300, (3, 240))
    alone = every_logit(CpuEngine(config, weights, precision, threads=1), sequences, 70)
    together = CpuEngine(config, weights, precision, threads=3)
    assert (every_logit(together, sequences, 70) == alone).all()
    assert together._board[threads.TICKET] >> 32, "no job was shared"
    lost = CpuEngine(config, weights, precision, threads=2)
    monkeypatch.setattr(engine_cpu, "assist", lambda who, board, *rest: _claim_and_mark_late(board))
    few = sequences[:, :100]
    assert (every_logit(lost, few, 70) == alone[:, : few.shape[1] - 69]).all()


def test_two_thousand_steps_agree_with_transformers():
    torch = pytest.importorskip("torch")
    config, weights = random_llama(300, 2000, **WIDE)
    weights = {name: w / 4 if w.ndim == 2 else w for name, w in weights.items()}
    model = in_transformers(config, weights)
    sequence = np.random.default_rng(8).integers(0, 300, (1, 2000))
    with torch.no_grad():
        expected = model(torch.from_numpy(sequence)).logits.numpy()
    assert np.abs(expected).max() > 1
    logits = every_logit(CpuEngine(config, weights, threads=2), sequence, 1)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_helper_computes_what_the_leader_would(precision):
    """The output's product of the last step once more, all of it by a helper."""
    config, weights = random_llama(300, 400, **WIDE)
    engine = CpuEngine(config, weights, precision, threads=2)
    logits = begin(engine, [np.array([1, 2])])
    engine._dismiss()
    shape, rooms = engine._desk(0, 1)
    panels = -(-300 // 64)
    job = threads.post(engine._board, forward.FINAL, 0, 1, 1, 2, -(-panels // 2))
    forward.assist(1, engine._board, rooms, shape, engine._weights, engine._cache)
    done = engine._board[threads.DONE :][: -(-panels // 2)]
    assert (done == (int(job) << 32 | 1)).all()
    assert (rooms.results[1, 0, :300] == logits[0]).all()


def test_prompts_of_any_length_twins_computed_once_and_rows_that_leave(monkeypatch):
    config, weights = random_llama(90, 300)
    rng = np.random.default_rng(3)
    engine, alone = CpuEngine(config, weights, threads=2), CpuEngine(config, weights)
    sequences = [rng.integers(0, 90, n) for n in (5, 140, 5, 31, 1, 80)]
    sequences[2] = sequences[0].copy()
    computed = []
    compute = engine._compute
    with monkeypatch.context() as patch:
        patch.setattr(
            engine,
            "_compute",
            lambda t, *rest, **more: (computed.append(t.shape[1]), compute(t, *rest, **more)),
        )
        logits = begin(engine, sequences)
    assert sum(computed) == 5 + 140 + 31 + 1 + 80

    def compare():
        for sequence, row in zip(sequences, logits, strict=True):
            assert (begin(alone, [sequence])[0] == row).all()

    compare()
    for leave in ([0, 1, 2, 5], [1, 3], [0]):  # 140 + 120 tokens: the cache grows on the way
        keep(engine, leave)
        sequences = [sequences[row] for row in leave]
        for _ in range(40):
            ids = rng.integers(0, 90, len(sequences))
            logits = engine.step(ids)
            sequences = [np.append(s, token) for s, token in zip(sequences, ids)]
        compare()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_smaller_weights_stay_close_and_keep_the_order_of_sums(precision):
    config, weights = random_llama(90, 100)
    prompt = [np.arange(40)]
    whole = CpuEngine(config, weights)
    exact = begin(whole, prompt)[0]
    engine = CpuEngine(config, weights, precision, threads=1)
    assert 0 < np.abs(begin(engine, prompt)[0] - exact).mean() < 0.1 * exact.std()
    assert engine.weight_bytes < 0.6 * whole.weight_bytes
    sequences = np.random.default_rng(4).integers(0, 90, (7, 20))
    together = every_logit(engine, sequences, 1)
    assert (every_logit(engine, sequences[6:], 15)[0] == together[6, 14:]).all()


def test_bfloat16_bits_give_what_their_float32_values_give():
    config, weights = random_llama(90, 100, tie_word_embeddings=True)
    bits = {k: (v.view(np.uint32) >> 16).astype(np.uint16) for k, v in weights.items()}
    values = {k: (v.astype(np.uint32) << 16).view(np.float32) for k, v in bits.items()}
    prompt = [np.arange(30)]
    expected = begin(CpuEngine(config, values), prompt)
    assert (begin(CpuEngine(config, bits), prompt) == expected).all()
    # Held so, keys and values are rounded as well.
    held = begin(CpuEngine(config, bits, "bfloat16"), prompt)
    assert 0 < np.abs(held - expected).mean() < 0.004 * expected.std()


def test_what_the_cache_holds_is_rounded_as_torch_rounds():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(8)
    x = np.concatenate([rng.normal(size=3000), 10.0 ** rng.uniform(-40, 38, 3000), [0.0, -0.0]])
    x = np.concatenate([x, -x, 1 + np.arange(9) / 512]).astype(np.float32)  # halves among them

    @njit()
    def rounded(x, out):
        for i in range(len(x)):
            out[i] = matmul.as_stored(x[i], out)

    for out in (np.empty(len(x), np.uint16), np.empty(len(x), np.float32)):
        rounded(x, out)
        kind = torch.bfloat16 if out.dtype == np.uint16 else torch.float32
        held = (out.astype(np.uint32) << 16).view(np.float32) if out.itemsize == 2 else out
        assert (held == torch.from_numpy(x).to(kind).float().numpy()).all()


def test_tiles_of_every_processor_agree_to_the_bit():
    """The lane count follows the processor's vector width; the sums must not."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 33)).astype(np.float32)
    w = rng.normal(size=(33, 64)).astype(np.float32)
    expected = np.empty((4, 64), np.float32)
    tile_1 = matmul.tile_1

    @njit()
    def rows(x, w, out):
        for n in range(4):
            tile_1(x[n : n + 1], w, out[n:])

    rows(x, w, expected)
    np.testing.assert_allclose(expected, x @ w, atol=1e-5)
    for tokens, lanes in ((2, 32), (2, 64), (4, 16), (4, 64)):
        tile = matmul._make_tile(tokens, lanes)

        @njit()
        def blocks(x, w, out, tokens, lanes, tile=tile):
            for n in range(0, 4, tokens):
                for lane in range(0, 64, lanes):
                    tile(x[n:], w[:, lane:], out[n:, lane:])

        out = np.empty_like(expected)
        blocks(x, w, out, tokens, lanes)
        assert (out == expected).all()


def test_integer_tiles_of_every_processor_are_exact():
    rng = np.random.default_rng(6)
    q = rng.integers(-127, 128, (4, 12))
    q[0], q[1] = 127, -127
    weights = rng.integers(-127, 128, (64, 12))
    weights[0], weights[1] = 127, -127
    kinds = {"plain": 2} | ({"avx2": 2} if matmul._FEATURES.get("avx2") else {})
    for kind, group in (kinds | ({"vnni": 4} if matmul._VNNI else {})).items():
        panel = (weights + 128).astype(np.uint8).reshape(64, -1, group).swapaxes(0, 1).copy()
        levels = q.astype(np.int8 if group == 4 else np.int16)
        start = (-128 * q.sum(axis=1)).astype(np.int32)
        for tokens, lanes in ((1, 64), (2, 32), (2, 64), (4, 16), (4, 64)):
            tile = matmul._make_integer_tile(tokens, lanes, kind)

            @njit()
            def blocks(q, w, out, tokens, lanes, tile=tile):
                for n in range(0, 4, tokens):
                    for lane in range(0, 64, lanes):
                        tile(q[n:], w[:, lane:], out[n:, lane:])

            out = np.repeat(start[:, None], 64, axis=1)
            blocks(levels, panel, out, tokens, lanes)
            assert (out == q @ weights.T).all()


def test_context_is_enforced():
    config, weights = random_llama(90, 20)
    engine = CpuEngine(config, weights)
    with pytest.raises(InputError, match="context"):
        begin(engine, [np.arange(21)])
    begin(engine, [np.arange(20)])
    with pytest.raises(InputError, match="context"):
        engine.step(np.array([1]))


def test_what_it_cannot_run_is_refused_in_words():
    config, weights = random_llama(90, 20)
    for change, word in (
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "biases"),
        ({"model_type": "mistral"}, "mistral"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "llama3"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": None}, "linear"),
        ({"num_hidden_layers": 3}, "lacks model.layers.2"),
        ({"intermediate_size": 64}, "gate_proj"),
    ):
        with pytest.raises(InputError, match=word):
            CpuEngine(config | change, weights)
    for name in ("model.norm.weight", "lm_head.weight"):
        with pytest.raises(InputError, match=name):
            CpuEngine(config, {k: v for k, v in weights.items() if k != name})
    with pytest.raises(InputError, match="biases"):
        CpuEngine(config, weights | {"model.layers.0.mlp.up_proj.bias": np.zeros(48, np.float32)})
    with pytest.raises(InputError, match="precision"):
        CpuEngine(config, weights, "float8")


def test_it_imports_no_torch():
    code = "import sys, jpeglm.generation.engine_cpu; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
