"""Parquet files of this machine and of stores, for pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jpeglm.remote import is_remote, opened

__all__ = ["parquet"]


def parquet(path: Path) -> Any:
    """The pyarrow.parquet.ParquetFile of a path; a store is asked for what is read of it."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(opened(path) if is_remote(path) else path)
