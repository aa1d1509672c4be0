"""Llama shapes from 2M parameters to the paper's 7B, and their construction in transformers.

A preset is a plain dictionary, Hugging Face's `config.json` without its noise, so that the command
line and the torch-free engine can read and count it; only `build` imports torch.

Trade-off of the small presets: four wide layers rather than many thin ones, with heads of 64. At
1.9M parameters on one CPU core, 128x9, 192x4 and 256x2 (width x layers) train at 0.62, 1 and 1.22
of the same tokens/s, and heads of 32 at 0.76 of heads of 64.

    config = preset("2m", vocab_size=1024, max_length=512)
    model = build(config, seed=0)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jpeglm.config import InputError, fits, shorten

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

# hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, peak learning rate.
# Feed-forward widths are about 8/3 of the model's (Touvron et al. 2023, arXiv 2302.13971, 2.2),
# in multiples of 64. 7b is Llama-2 7B (arXiv 2307.09288) with the paper's learning rate; the other
# rates fall with the width.
_SHAPES: dict[str, tuple[int, int, int, int, float]] = {
    "1m": (128, 4, 2, 384, 3e-3),
    "2m": (192, 4, 3, 512, 2e-3),
    "3m": (256, 4, 4, 704, 2e-3),
    "5m": (320, 4, 5, 832, 1.5e-3),
    "10m": (384, 6, 6, 1024, 1.2e-3),
    "30m": (512, 9, 8, 1408, 1e-3),
    "85m": (768, 12, 12, 2048, 6e-4),
    "300m": (1024, 24, 16, 2752, 5e-4),
    "1b": (2048, 20, 32, 5504, 4e-4),
    "7b": (4096, 32, 32, 11008, 3e-4),
}
PRESETS = tuple(_SHAPES)
_UNTIED = ("1b", "7b")

SHORT = 1024
"""Rows up to here attend faster on a CPU in bfloat16 through plain products than through SDPA.
That is asked of each batch: a set whose longest drawing takes 2,000 tokens has rows of 700."""


def preset(name: str, vocab_size: int, max_length: int, **overrides: Any) -> dict[str, Any]:
    """Hugging Face Llama configuration of a preset; overrides replace any of its keys.

    max_length: positions in tokens, BOS and EOS included. Raises InputError for an unknown preset
    or key and for a shape that cannot be.
    """
    if name not in _SHAPES:
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    hidden, layers, heads, inner, _ = _SHAPES[name]
    config: dict[str, Any] = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": max_length,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": name not in _UNTIED,
        "attention_bias": False,
        "mlp_bias": False,
        "initializer_range": 0.02,
    }
    unknown = sorted(set(overrides) - set(config))
    if unknown:
        raise InputError(f"a model has no {', '.join(unknown)}; it has {', '.join(config)}")
    if "num_attention_heads" in overrides:
        overrides = {"num_key_value_heads": overrides["num_attention_heads"], **overrides}
    config |= overrides
    check(config)
    return config


SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)
DEPTH = "num_hidden_layers"
"""What a run that begins with trained weights may enlarge."""
MOST_LAYERS = 1024
MOST_POSITIONS = 1 << 18
"""The rotary tables of more would be large, whatever the weights are."""


def check(config: dict[str, Any]) -> None:
    """Refuse (InputError) a configuration that is no Llama's, any release's `config.json`."""

    def wrong(key: str, need: str) -> InputError:
        return InputError(f"{key} is {shorten(config.get(key))}; it must be {need}")

    if config.get("model_type", "llama") != "llama":
        raise wrong("model_type", "'llama', the only model that can be run")
    if config.get("hidden_act", "silu") != "silu":
        raise wrong("hidden_act", "'silu'")
    for key in SIZES:
        optional = key == "num_key_value_heads" and config.get(key) is None
        if not optional and (not fits(config.get(key), "int") or config[key] < 1):
            raise wrong(key, "a whole number from 1")
    for key, most in (
        ("num_hidden_layers", MOST_LAYERS),
        ("max_position_embeddings", MOST_POSITIONS),
    ):
        if config[key] > most:
            raise wrong(key, f"{most} at most")
    heads = config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    if heads % groups:
        raise InputError(
            f"num_key_value_heads is {groups}; it must divide num_attention_heads, {heads}"
        )
    if config.get("head_dim") is None:
        if config["hidden_size"] % (2 * heads):
            raise InputError(
                f"hidden_size {config['hidden_size']} does not give {heads} heads of even size; "
                f"make it a multiple of {2 * heads}"
            )
    elif not fits(config["head_dim"], "int") or config["head_dim"] < 2 or config["head_dim"] % 2:
        raise wrong("head_dim", "an even number from 2")
    for key in ("tie_word_embeddings", "attention_bias", "mlp_bias"):
        if not fits(config.get(key), "bool | None"):
            raise wrong(key, "true or false")
    for key in ("rms_norm_eps", "initializer_range"):
        if key in config and not (fits(config[key], "float") and 0 < config[key] <= 1):
            raise wrong(key, "a number above 0, at most 1")
    rope_base(config)


def tensors(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that a checked configuration stands for."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    queries, groups = heads * head, (config.get("num_key_value_heads") or heads) * head
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (width,),
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (groups, width),
        "self_attn.v_proj": (groups, width),
        "self_attn.o_proj": (width, queries),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    biased = [
        name
        for room, key in (("self_attn.", "attention_bias"), ("mlp.", "mlp_bias"))
        for name in layer
        if config.get(key) and name.startswith(room)
    ]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], width),
        **{
            f"model.layers.{i}.{name}.weight": shape
            for i in range(config["num_hidden_layers"])
            for name, shape in layer.items()
        },
        **{
            f"model.layers.{i}.{name}.bias": layer[name][:1]
            for i in range(config["num_hidden_layers"])
            for name in biased
        },
        "model.norm.weight": (width,),
    }
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return shapes


def learning_rate(name: str) -> float:
    """The peak learning rate that goes with a preset (AdamW, some thousand tokens a step)."""
    if name not in _SHAPES:
        raise InputError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return _SHAPES[name][4]


def nearest_preset(config: dict[str, Any]) -> str:
    """The preset whose width is nearest to that of a configuration, as their rates go by width."""
    return min(_SHAPES, key=lambda name: abs(math.log(_SHAPES[name][0] / config["hidden_size"])))


def like(config: dict[str, Any], max_length: int, **deeper: Any) -> dict[str, Any]:
    """A checkpoint's `config.json` in the form of `preset`, for at least so many tokens; deeper:
    DEPTH, as many as the checkpoint's or more (`models.depth`)."""
    shape = preset("2m", config["vocab_size"], max(max_length, config["max_position_embeddings"]))
    kept = set(shape) - {"architectures", "vocab_size", "max_position_embeddings", "rope_theta"}
    shape |= {key: config[key] for key in kept if key in config}
    shape["rope_theta"] = rope_base(config)
    shape |= deeper
    check(shape)
    if shape[DEPTH] < config[DEPTH]:
        raise InputError(
            f"{DEPTH} is {shape[DEPTH]}, but the weights to begin with have {config[DEPTH]} "
            "layers; a run can add layers and take none away"
        )
    return shape


def rope_base(config: dict[str, Any]) -> float:
    """Base of the rotary positions in any release's `config.json`; InputError for other kinds."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else None
    if kind != "default" or rope.get("partial_rotary_factor", 1) != 1:
        raise InputError(f"only default rotary positions are known here, not {shorten(rope)}")
    base = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    if not fits(base, "float") or not base >= 1:
        raise InputError(f"rope_theta is {shorten(base)}; it must be a number from 1")
    return float(base)


def _matrices(config: dict[str, Any]) -> int:
    """Weights of all layers' matrices, embedding and output left out."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    groups = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    layer = 2 * hidden * hidden + 2 * hidden * groups + 3 * hidden * inner
    return int(config["num_hidden_layers"] * layer)


def parameters(config: dict[str, Any]) -> int:
    """Exact number of parameters; tied embeddings count once."""
    hidden = config["hidden_size"]
    tables = config["vocab_size"] * hidden * (1 if config["tie_word_embeddings"] else 2)
    norms = (2 * config["num_hidden_layers"] + 1) * hidden
    return int(_matrices(config) + norms + tables)


def flops_per_token(config: dict[str, Any], length: int) -> int:
    """Floating-point operations of training on one token in a row of `length` tokens.

    6 a weight of every matrix product, the output's included, and 12·layers·width·length for
    attention, whose causal half is not subtracted (PaLM, arXiv 2204.02311, appendix B).
    """
    products = _matrices(config) + config["vocab_size"] * config["hidden_size"]
    attention = config["num_hidden_layers"] * config["hidden_size"] * length
    return int(6 * products + 12 * attention)


def build(config: dict[str, Any], seed: int, attention: str = "causal") -> LlamaForCausalLM:
    """A freshly initialised float32 model; equal seeds give equal weights.

    Matrices and embeddings are normal with deviation initializer_range; those that write into the
    residual stream are divided by sqrt(2·layers) (GPT-2, Radford et al. 2019, 2.3). attention:
    `causal`, torch's kernels without a mask, `eager`, or `short`, which on a CPU is ours for rows
    up to SHORT and torch's for longer ones.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        model = unfilled(config, attention)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fill(name, parameter, config, generator)
    return model


def unfilled(config: dict[str, Any], attention: str = "causal") -> LlamaForCausalLM:
    """The model with weights of no meaning; under `torch.device("meta")` they take no memory."""
    from transformers import LlamaConfig, LlamaForCausalLM

    _register()
    settings = LlamaConfig(**{k: v for k, v in config.items() if k != "architectures"})
    settings._attn_implementation = attention
    return LlamaForCausalLM(settings)


def fill(
    name: str, parameter: torch.Tensor, config: dict[str, Any], generator: torch.Generator
) -> None:
    """First values of one parameter, in place; equal ones need the order of named_parameters."""
    deviation = config["initializer_range"]
    if parameter.dim() < 2:
        parameter.fill_(1.0)  # RMSNorm gains
        return
    if name.endswith(("o_proj.weight", "down_proj.weight")):  # they write into the residual stream
        deviation /= (2 * config["num_hidden_layers"]) ** 0.5
    parameter.normal_(0.0, deviation, generator=generator)


def _short_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of right-padded rows without a cache, [B, heads, T, size] each; of
    rows above SHORT by torch's kernels.

    The backward of SDPA's CPU kernel takes 29 % of a 2m step in bfloat16; with these products, that
    have avx512_bf16 behind them, the step is 1.20, 1.30 and 1.10 times as fast at 208, 512 and 1024
    tokens, 0.73 times at 2048. Memory grows with T squared.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    batch, heads, length, size = query.shape
    if length > SHORT:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **more)
    if key.shape[1] != heads:
        key = key.repeat_interleave(heads // key.shape[1], dim=1)
        value = value.repeat_interleave(heads // value.shape[1], dim=1)
    future = torch.full((length, length), float("-inf"), dtype=query.dtype, device=query.device)
    weights = torch.softmax(
        torch.baddbmm(
            future.triu(1).expand(batch * heads, length, length),
            query.reshape(batch * heads, length, size),
            key.reshape(batch * heads, length, size).transpose(1, 2),
            alpha=scaling or size**-0.5,
        ),
        dim=-1,
    )
    out = torch.bmm(weights.to(value.dtype), value.reshape(batch * heads, length, size))
    return out.view(batch, heads, length, size).transpose(1, 2), None


def _register() -> None:
    """transformers' own `sdpa` makes a mask of [T, T] where it is compiled, for rows might hold
    several sequences, and torch's fastest kernels take none. Here a row is one sequence."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    for name, forward in (("causal", sdpa_attention_forward), ("short", _short_attention)):
        AttentionInterface.register(name, forward)
        AttentionMaskInterface.register(name, lambda *_, **__: None)
