"""What a checkpoint is: a hash of its files, so that one that has changed under the same name is another one."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ...engines.bundle.file_checks import FileState, file_sha256, state_of
from ...engines.bundle.user_cache import CacheUnusableError, cached_file, prune, read_cached, write_cached
from ...engines.errors import CheckpointError

__all__ = ["content_hash", "files_of"]

_SUFFIXES = (".json", ".txt", ".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".model")
_CHECKPOINTS, _BYTES = 256, 16 * 2**20


class _Hashed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: FileState
    sha256: str


def files_of(path: Path) -> dict[str, Path]:
    """Return the files of a checkpoint or a component by their names in it: configs, tokenizers and weights."""
    if path.is_file():
        return {path.name: path}
    found: dict[str, Path] = {}
    for folder in (path, *sorted(entry for entry in path.iterdir() if entry.is_dir())):
        prefix = "" if folder == path else f"{folder.name}/"
        for file in sorted(folder.iterdir()):
            if file.suffix in _SUFFIXES and file.is_file():
                found[prefix + file.name] = file
    return found


def content_hash(files: Iterable[tuple[str, Path]]) -> str:
    """Return the SHA-256 of files' names and contents.

    Hashing gigabytes takes seconds, so the hash of a file is remembered in the user's cache until the file changes; see
    :mod:`sdengine.engines.file_checks`.

    Raises:
        CheckpointError: a file cannot be read.

    """
    whole = hashlib.sha256()
    named = list(files)
    record = hashlib.sha256("\0".join(os.fspath(file) for _, file in named).encode("utf-8", "surrogateescape"))
    known = _known(record.hexdigest())
    hashed = {}
    for name, file in named:
        try:
            state = state_of(file)
            before = known.get(str(file))
            sha256 = before.sha256 if before is not None and before.state == state else file_sha256(file)
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
        if state.settled:
            hashed[str(file)] = _Hashed(state, sha256)
        whole.update(f"{name}\0{sha256}\0".encode("utf-8", "surrogateescape"))
    if hashed != known:
        _remember(record.hexdigest(), hashed)
    return whole.hexdigest()


def _file(record: str) -> Path:
    return cached_file("checkpoints", f"{record[:32]}.json")


def _known(record: str) -> dict[str, _Hashed]:
    try:
        content = read_cached(_file(record))
        return {} if content is None else msgspec.json.decode(content, type=dict[str, _Hashed])
    except (CacheUnusableError, msgspec.MsgspecError):
        return {}  # then it is hashed again


def _remember(record: str, hashed: dict[str, _Hashed]) -> None:
    try:
        file = _file(record)
        write_cached(file, msgspec.json.encode(hashed))
    except CacheUnusableError:
        return  # the cache of bundles says why it cannot be used
    prune(file.parent, "*.json", files=_CHECKPOINTS, size=_BYTES)
