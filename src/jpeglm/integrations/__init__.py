"""Other people's tools: their checkpoints in, our grammar and files out."""
