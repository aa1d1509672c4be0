"""Networks: Llama presets over transformers' own classes."""
