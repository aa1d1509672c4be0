"""jpeglm: language models that write image and video files."""

__version__ = "0.1.0"
