"""Decodes JSON of which each object has every name once: of two, readers would silently take the last."""

import json
from collections import Counter
from typing import Any

__all__ = ["json_data"]


def json_data(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or one of its objects has a name twice.

    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {twice[:100]!r} occurs twice in one object")
    return content
