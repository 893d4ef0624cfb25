"""A checkpoint with parts of others: a folder of links, which is exported like any other checkpoint."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...engines.bundle.user_cache import CacheUnusableError, cached_file
from ...engines.bundle.whole_file import write_whole
from ...engines.errors import CheckpointError, SdengineError, UsageError
from .identity import content_hash, files_of
from .locate import Located

__all__ = ["composed", "saved_part"]

_INDEX = "model_index.json"
_OF_CHECKER = {
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
}
"""Parts that a checkpoint need not have had before, and what its index calls them."""


def composed(source: Located, parts: Mapping[str, Path], flags: Mapping[str, object]) -> Path:
    """Return the folder of a checkpoint in which some parts are others'.

    Args:
        source: a checkpoint's folder.
        parts: folders, by the names of the parts that they replace.
        flags: entries of ``model_index.json`` that are changed.

    Raises:
        CheckpointError: the checkpoint has no such part, or its index cannot be read.
        SdengineError: the cache cannot be used.

    """
    index = source.index()
    for name in parts:
        if name not in index and name not in _OF_CHECKER:
            raise CheckpointError(f"{source.path} has no {name} that another could take the place of")
    whole = json.dumps([str(source.path), {n: str(p) for n, p in sorted(parts.items())}, dict(flags), index])
    key = hashlib.sha256(whole.encode()).hexdigest()[:24]
    try:
        target = cached_file("composed", key, source.path.name)
        for entry in source.path.iterdir():
            if entry.name != _INDEX and entry.name not in parts:
                _link(target / entry.name, entry)
        for name, folder in parts.items():
            _link(target / name, folder)
        added = {name: entry for name, entry in _OF_CHECKER.items() if name in parts}
        with write_whole(target / _INDEX) as aside:  # another process may be reading it
            aside.write_text(json.dumps({**index, **added, **flags}, indent=2))
    except (CacheUnusableError, OSError) as error:
        raise SdengineError(
            f"a checkpoint with parts of others needs the cache, and it cannot be used: {error}"
        ) from error
    return target


def _link(place: Path, target: Path) -> None:
    place.parent.mkdir(mode=0o700, exist_ok=True)
    if place.is_symlink() and place.readlink() == target:
        return
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    with contextlib.suppress(FileExistsError):  # by another process that does the same
        place.symlink_to(target)


def saved_part(name: str, part: Any) -> Path:
    """Write a network or a tokenizer that the caller holds in memory, of diffusers or transformers, to the cache.

    Raises:
        UsageError: it cannot be written by its own ``save_pretrained``.
        SdengineError: the cache cannot be used.

    """
    if not hasattr(part, "save_pretrained"):
        raise UsageError(
            f"{name}={type(part).__name__}: give a part of another pipeline, one that this package has opened, or an "
            "object of diffusers or transformers that has save_pretrained()"
        )
    try:
        folder = cached_file("parts", name).parent
        aside = Path(tempfile.mkdtemp(dir=folder, prefix=".part-"))
    except (CacheUnusableError, OSError) as error:
        raise SdengineError(f"{name} cannot be written to the cache: {error}") from error
    try:
        part.save_pretrained(aside)
        target = folder / f"{name}-{content_hash(files_of(aside).items())[:24]}"
        if not target.is_dir():
            with contextlib.suppress(FileExistsError):
                os.rename(aside, target)
    except OSError as error:
        raise SdengineError(f"{name} could not be written to the cache: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target
