"""The model reads what any decoder knows, and spends nothing on what cannot come.

Nineteen numbers a token say where the next symbol stands, what the blocks around hold there and
what their edges foretell; each adds a learned vector to the token's own. Probability goes to legal
tokens alone. Beside that: half the ids a step, a rate that falls to zero, and values that see the
token itself.
"""

from race import module_of

__all__ = ["Entry"]


class Entry(module_of("00-llama").Entry):
    context = edges = legal = True
    tokens_a_step = 2048
    last = 0.0
    value_embeddings = True
