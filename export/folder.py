"""A folder that appears whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..engines.errors import UsageError

__all__ = ["whole_folder"]


@contextlib.contextmanager
def whole_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write into, beside ``target``; rename it when the block ends well, remove it otherwise.

    Files are synced before the rename, so that what has the name is complete even after a power cut.

    Args:
        target: the name it will have.
        overwrite: whether a folder of that name may be replaced; it stays until the new one is whole.

    Raises:
        UsageError: the target exists and may not be replaced, or its parent cannot be written.

    """
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists already; choose another name, or replace it with --overwrite")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; choose another name")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    except OSError as error:
        raise UsageError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        yield partial
        for file in partial.rglob("*"):
            _sync(file)
        _sync(partial)
        if target.exists():
            old = target.with_name(f".{target.name}.old-{os.getpid()}")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
