"""Models of the Hugging Face hub as folders: `hf:ORG/NAME`, fetched by `huggingface_hub`.

Only what an import reads is fetched, into the library's own cache, where a second import finds it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from jpeglm.config import InputError, shorten
from jpeglm.files import told
from jpeglm.remote import near

__all__ = ["source_folder"]

SCHEME = "hf:"
PICKLES = "*.bin"
"""Not fetched where the same weights lie there as safetensors."""
WANTED = ("*.json", "*.safetensors", PICKLES, "tokenizer.model")
NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def source_folder(source: str, wanted: Collection[str] = WANTED) -> Path:
    """The folder that is meant: itself, or that of `hf:ORG/NAME` (`@REVISION` may follow), with the
    files of these names (as of fnmatch).

    InputError where there is none, or the hub cannot be reached or does not have it.
    """
    if not source.startswith(SCHEME):
        folder = near(source)
        if not folder.is_dir():
            raise InputError(
                f"there is no folder {folder}; a model of the Hugging Face hub is {SCHEME}ORG/NAME"
            )
        return folder
    name = source.removeprefix(SCHEME)
    if not NAME.fullmatch(name):
        raise InputError(f"{shorten(source)} is no model's name; write {SCHEME}ORG/NAME")
    from huggingface_hub import errors, list_repo_files, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    # Of the client that this release has.
    failed: Any = errors.HTTPError  # type: ignore[attr-defined]

    name, _, revision = name.partition("@")
    of: dict[str, Any] = {"repo_id": name, "revision": revision or None}
    safe = [pattern for pattern in wanted if pattern != PICKLES]
    try:
        try:
            files = list_repo_files(**of) if PICKLES in wanted else []
        except HfHubHTTPError:
            raise
        except (failed, OfflineModeIsEnabled):
            with suppress(LocalEntryNotFoundError):  # a copy that lies here may have no pickles
                return Path(snapshot_download(**of, allow_patterns=safe, local_files_only=True))
            files = []
        chosen = safe if any(file.endswith(".safetensors") for file in files) else list(wanted)
        return Path(snapshot_download(**of, allow_patterns=chosen))
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{source} cannot be fetched: the hub cannot be reached, and no copy of it lies here"
        ) from error
    except (failed, OSError, ValueError) as error:
        raise InputError(f"{source} cannot be fetched: {told(error)}") from error
