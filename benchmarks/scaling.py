"""What training takes on a cluster: memory, time and communication of a step, of measured pieces.

    python benchmarks/scaling.py --out docs/results/scaling.json

Measured here, on one layer of the preset at its real width: the FLOPs of a forward and a backward
pass (torch's FlopCounterMode, on the device `meta`, at the real length) and the bytes that autograd
keeps (what `saved_tensors_hooks` sees at two short lengths under bfloat16, without weights; they
grow by the token, so two lengths give the slope). Known: bytes of weights, gradients and
optimizer a parameter, and what FSDP moves, which tests/integration/test_scaling.py counts on four
processes. Taken from docs/results/bench-device-h200.json: the rate of matrix products. Not
measured: the links between machines, whose rate is an argument, and how much of the device's rate
a step reaches, which is another. So it is an estimate, whose parts can be checked.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from jpeglm.environment import environment
from jpeglm.files import write_json
from jpeglm.models.llama import flops_per_token, parameters, preset, unfilled

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
VOCABULARY = 323
"""The paper's: 320 merged tokens of bytes, and what begins and ends."""
SHORT = (64, 128)
"""Tokens of the rows whose kept bytes are counted."""


def kept(shape: dict[str, Any], checkpointed: bool) -> float:
    """Bytes a token that one layer's forward pass keeps for its backward pass, in bfloat16."""
    one = unfilled({**shape, "num_hidden_layers": 1})
    if checkpointed:
        old = one.gradient_checkpointing_enable
        getattr(one, "activation_checkpointing_enable", old)({"use_reentrant": False})
        one.train()
    layer, rotary = one.model.layers[0], one.model.rotary_emb
    weights = {weight.data_ptr() for weight in layer.parameters()}
    found = []
    for length in SHORT:
        seen: dict[int, int] = {}

        def see(tensor: torch.Tensor, seen: dict[int, int] = seen, length: int = length) -> Any:
            storage = tensor.untyped_storage()
            own = tensor.data_ptr() in weights or length not in tensor.shape
            if not own:  # copies of weights in bfloat16 are gathered again, not kept
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        hidden = torch.zeros(1, length, shape["hidden_size"], requires_grad=True)
        places = torch.arange(length)[None]
        with torch.autocast("cpu", torch.bfloat16):
            given = rotary(hidden, places)
            with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
                out = layer(hidden, position_embeddings=given, attention_mask=None)
        found.append(sum(seen.values()))
        del out
    return (found[1] - found[0]) / (SHORT[1] - SHORT[0])


def layer_flops(shape: dict[str, Any], length: int) -> int:
    """Of a forward and a backward pass of one layer over a row, as torch counts them."""
    with torch.device("meta"):
        one = unfilled({**shape, "num_hidden_layers": 1}, "eager")
        hidden = torch.empty(1, length, shape["hidden_size"], requires_grad=True)
        places = torch.arange(length)[None]
        given = one.model.rotary_emb(hidden, places)
        with FlopCounterMode(display=False) as counter:
            out = one.model.layers[0](hidden, position_embeddings=given, attention_mask=None)
            out = out[0] if isinstance(out, tuple) else out
            out.sum().backward()
    return int(counter.get_total_flops())


def estimate(
    name: str, length: int, processes: int, rows: int, link: float, reached: float
) -> dict[str, Any]:
    """Everything of a step; link: bytes/s of a process into the network; reached: the share of the
    device's products that a step attains; rows: of one pass of one process."""
    shape = preset(name, VOCABULARY, length)
    layers, count = shape["num_hidden_layers"], parameters(shape)
    device = json.loads((RESULTS / "bench-device-h200.json").read_text())
    peak = device["tables"]["the device"]["product of matrices, FLOPs/s"]["median"]
    measured = {
        "layer_flops": layer_flops(shape, length),
        "kept_bytes_a_token_and_layer": kept(shape, False),
        "kept_bytes_a_token_and_layer_checkpointed": kept(shape, True),
        "products_a_second": peak,
    }
    tables = 2 * VOCABULARY * shape["hidden_size"]
    widest = (count - tables) // layers
    tokens = rows * length
    memory = {
        "weights": 4 * count / processes,
        "gradients": 4 * count / processes,
        "optimizer": 4 * count / processes,  # Muon's momentum; AdamW has two, of the tables alone
        "two layers gathered": 2 * 2 * widest,
        "a layer's gradients": 2 * widest + 4 * widest,
        "tables gathered": 2 * 4 * tables,
        "Muon's whole matrices": 3 * 2 * count / processes,
        "activations": measured["kept_bytes_a_token_and_layer"] * layers * tokens,
        "activations, checkpointed": measured["kept_bytes_a_token_and_layer_checkpointed"]
        * layers * tokens + measured["kept_bytes_a_token_and_layer"] * tokens,
        "logits": 2 * 4 * VOCABULARY * tokens,
    }  # fmt: skip
    base = sum(v for k, v in memory.items() if not k.startswith("activations"))
    flops = (
        3 * 2 * VOCABULARY * shape["hidden_size"] * tokens + layers * rows * measured["layer_flops"]
    )
    share = (processes - 1) / processes
    moved = {
        "weights, forward and backward": 2 * 2 * count * share,
        "gradients": 4 * count * share,
        "Muon, there and back": 2 * 2 * count / processes * share,
    }
    compute = flops / (peak * reached)
    again = (4 / 3) * compute
    wire = sum(moved.values()) / link
    return {
        "preset": name, "length": length, "processes": processes, "rows": rows,
        "parameters": count, "measured": measured, "memory": memory,
        "memory_without_checkpointing": base + memory["activations"],
        "memory_with_checkpointing": base + memory["activations, checkpointed"],
        "flops_a_pass": flops,
        "flops_by_formula": flops_per_token(shape, length) * tokens,
        "moved": moved, "link": link, "reached": reached,
        "seconds": {"compute": compute, "compute, checkpointed": again, "communication": wire},
        "tokens_a_second": processes * tokens / max(again, wire),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="7b")
    parser.add_argument("--length", type=int, default=12288)
    parser.add_argument("--processes", type=int, default=32)
    parser.add_argument("--rows", type=int, default=1, help="of a pass of one process")
    parser.add_argument("--link", type=float, default=50e9, help="bytes/s of a process")
    parser.add_argument("--reached", type=float, default=0.4, help="share of the device's rate")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = estimate(
        given.preset, given.length, given.processes, given.rows, given.link, given.reached
    )
    found["machine"] = environment("torch", "transformers")
    if given.out:
        write_json(given.out, found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
