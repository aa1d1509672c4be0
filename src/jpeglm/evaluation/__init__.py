"""Measuring models and codecs on held-out pictures."""
