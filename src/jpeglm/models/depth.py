"""More layers for a trained model, which at first changes nothing that it says.

Behind a layer stand copies of it whose two products into the residual stream are zero, so that each
hands on what it is given until training moves it (block expansion, LLaMA Pro, Wu et al. 2024, arXiv
2401.02415). Trade-off: with twice the layers a token takes twice the time; at the photo model's 36
tokens a parameter that did not pay in 2.4 M tokens (docs/log.md).

    weights = deepened(read_weights(folder, config), 4, 8)
"""

from __future__ import annotations

import numpy as np

__all__ = ["deepened"]

OUTPUTS = ("o_proj.weight", "o_proj.bias", "down_proj.weight", "down_proj.bias")
"""What writes into the residual stream."""


def deepened(weights: dict[str, np.ndarray], layers: int, wanted: int) -> dict[str, np.ndarray]:
    """Weights of `layers` layers by their Hugging Face names → those of `wanted`, the added ones
    spread evenly among them; bfloat16 may stand as its uint16 bits."""
    sources = [number * layers // wanted for number in range(wanted)]
    found = {name: array for name, array in weights.items() if ".layers." not in name}
    for number, source in enumerate(sources):
        added = number > 0 and sources[number - 1] == source
        old = f"model.layers.{source}."
        for name, array in weights.items():
            if name.startswith(old):
                silent = added and name.endswith(OUTPUTS)
                kept = np.zeros_like(array) if silent else array
                found[f"model.layers.{number}.{name.removeprefix(old)}"] = kept
    return found
