"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["write_whole"]


@contextlib.contextmanager
def write_whole(file: Path, *, mode: int = 0o666, sync: bool = True) -> Iterator[Path]:
    """Give a new file beside ``file`` to write to; it takes its place when the block ends well, else it is removed.

    Several processes may write the same file at once; the last to end well wins.

    Args:
        file: what is to be written.
        mode: its permissions, before the user's mask.
        sync: wait until the content is on the disk, so that the file is whole even after a power cut.

    Raises:
        OSError: the folder cannot be written to, or is full.

    """
    aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield aside
        if sync:
            descriptor = os.open(aside, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
