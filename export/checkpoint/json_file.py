"""Reading the JSON files of a checkpoint, which may come from anywhere."""

from pathlib import Path
from typing import Any

from ...engines.errors import CheckpointError
from ...engines.files.file_kind import what_it_is
from ...engines.files.json_data import json_data

__all__ = ["read_json"]

_MAX_BYTES = 50_000_000  # a tokenizer.json of CLIP has 3.6 MB


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        CheckpointError: the file is missing, larger than any such file is, not JSON, or no object.

    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{file} is larger than {_MAX_BYTES} bytes")
        text = file.read_bytes()
        content = json_data(text)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        why = error if text.lstrip().startswith((b"{", b"[")) else what_it_is(file)
        raise CheckpointError(f"{file} is not JSON: {why}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not an object")
    return content
