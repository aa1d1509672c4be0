"""The paper's way with this project's tokens: a plain Llama of a million parameters.

The settings are those of `jpeglm train --preset 1m`: symbols that name their blocks, 1024 tokens,
Muon and AdamW, 4,096 ids a step, a cosine from 6e-3.
"""

from kit.entry import Entry

__all__ = ["Entry"]
