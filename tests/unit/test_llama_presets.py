"""Presets against transformers: exact counts, the same tensors, and our CPU attention."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jpeglm.config import InputError
from jpeglm.generation.export import usual_samples
from jpeglm.models import llama
from jpeglm.models.depth import deepened
from jpeglm.models.llama import PRESETS, build, flops_per_token, learning_rate, parameters, preset

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_agree_with_transformers(name: str) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = preset(name, vocab_size=1024, max_length=512)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config))
    assert parameters(config) == sum(p.numel() for p in model.parameters())
    named = float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert 0.85 < parameters(config) / named < 1.2


def test_seven_billion_is_llama_2() -> None:
    # Llama-2 7B has 6,738,415,616 parameters at a vocabulary of 32000.
    assert parameters(preset("7b", vocab_size=32000, max_length=12288)) == 6_738_415_616


def test_grouped_heads_and_overrides() -> None:
    changes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = preset("2m", 300, 64, num_hidden_layers=2, intermediate_size=96, **changes)
    model = build(config, seed=1)
    assert parameters(config) == sum(p.numel() for p in model.parameters())
    assert preset("2m", 300, 64, num_attention_heads=6)["num_key_value_heads"] == 6


def test_flops_of_a_hand_worked_shape() -> None:
    shape = {"hidden_size": 4, "num_hidden_layers": 1, "intermediate_size": 8}
    config = preset("2m", 10, 16, num_attention_heads=2, **shape)
    # 4·4·4 attention + 3·4·8 feed-forward + 4·10 output weights, six times; 12·1·4·16 attention.
    assert flops_per_token(config, 16) == 6 * (64 + 96 + 40) + 768


@pytest.mark.parametrize(
    ("layers", "wanted", "added"),
    [(1, 2, [1]), (2, 5, [1, 2, 4]), (3, 4, [1]), (4, 8, [1, 3, 5, 7]), (3, 3, [])],
)
@pytest.mark.parametrize("biased", [False, True])
def test_a_deepened_model_says_what_it_said(
    layers: int, wanted: int, added: list[int], biased: bool
) -> None:
    """To the last bit, in transformers' model; and gradients reach each added layer."""
    shape = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    biases = {"attention_bias": biased, "mlp_bias": biased}
    config = preset("2m", 50, 64, num_hidden_layers=layers, **shape, **biases)
    model = build(config, seed=0)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.manual_seed(number)) * 0.1)
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    deeper = config | {"num_hidden_layers": wanted}
    found = deepened(weights, layers, wanted)
    assert {name: array.shape for name, array in found.items()} == llama.tensors(deeper)
    other = build(deeper, seed=1)
    tied = "lm_head.weight"
    state = {name: torch.from_numpy(array) for name, array in found.items()}
    other.load_state_dict(state | {tied: state["model.embed_tokens.weight"]})
    ids = torch.arange(40).reshape(2, 20)
    loss = other(input_ids=ids, labels=ids).loss
    assert torch.equal(other(input_ids=ids).logits, model(input_ids=ids).logits)
    loss.backward()
    written = [layer.mlp.down_proj.weight for layer in other.model.layers]
    written += [layer.self_attn.o_proj.weight for layer in other.model.layers]
    assert all(weight.grad.any() for weight in written)
    silent = [number for number, weight in enumerate(written) if not weight.any()]
    assert silent == [*added, *(wanted + number for number in added)]


def test_equal_seeds_equal_weights_and_global_rng_untouched() -> None:
    config = preset("2m", 64, 32)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = build(config, 3), build(config, 3), build(config, 4)
    assert torch.equal(before, torch.get_rng_state())
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert first.lm_head.weight is first.model.embed_tokens.weight
    out = first.model.layers[0].self_attn.o_proj.weight.std().item()
    assert out == pytest.approx(0.02 / 8**0.5, rel=0.02)
    assert first.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.05)


def attended(attention: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of rows of 17 tokens, and a gradient."""
    shape = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = build(preset("2m", 50, 64, intermediate_size=96, **shape), 0, attention)
    logits = model(input_ids=torch.arange(3 * 17).reshape(3, 17) % 50, use_cache=False).logits
    logits.square().sum().backward()
    slope = model.model.layers[0].self_attn.q_proj.weight.grad
    assert slope is not None
    return logits.detach(), slope


def test_short_attention_equals_sdpa() -> None:
    for ours, theirs in zip(attended("short"), attended("sdpa")):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)
        assert not torch.equal(ours, theirs)  # other sums, in another order


def test_rows_that_are_not_short_attend_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "SHORT", 16)
    for ours, theirs in zip(attended("short"), attended("causal")):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("9q", {}, "9q"),
        ("2m", {"width": 3}, "width"),
        ("2m", {"hidden_size": 190}, "hidden_size"),
        ("2m", {"num_key_value_heads": 2}, "num_key_value_heads"),
        ("2m", {"num_hidden_layers": 0}, "num_hidden_layers"),
    ],
)
def test_errors_name_the_setting(name: str, changes: dict[str, int], word: str) -> None:
    with pytest.raises(InputError, match=word):
        preset(name, 100, 64, **changes)


def test_counting_needs_no_torch() -> None:
    code = (
        "import sys; from jpeglm.models.llama import *;"
        "print(parameters(preset('7b', 320, 12288)), learning_rate('7b'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == [str(learning_rate("7b")), "False"]


@pytest.mark.parametrize(("name", "drawn"), [("2m", 16), ("85m", 16), ("300m", 0), ("7b", 0)])
def test_large_models_are_exported_without_hours_of_drawing(name, drawn):
    assert usual_samples(preset(name, vocab_size=1024, max_length=512)) == drawn
