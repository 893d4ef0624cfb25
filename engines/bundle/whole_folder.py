"""Writes a folder whole or not at all, and removes what processes left that died while writing.

A folder is written beside its name, as ``.NAME.partial-TOKEN``, which its process holds a lock on (``flock`` on the
folder itself: it follows the folder through renames, leaves no file, and ends with the process). One that nobody holds
is a dead process's and is removed by the next that writes the same name. A bundle that is replaced changes places with
its successor in one call; where the system cannot do that it is called ``.NAME.old-TOKEN`` for a moment, and a process
that finds it so, with no bundle in its place, puts it back.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import SdengineError, UsageError
from .exchange import exchanged
from .folder_lock import locked_now
from .manifest import MANIFEST

__all__ = ["check_target", "remove_left", "remove_whole", "restore_replaced", "whole_folder"]

_PARTIAL, _OLD = "partial", "old"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def check_target(target: Path, *, overwrite: bool, foreign: Callable[[Path], list[str]]) -> None:
    """Check that a folder may be written.

    Args:
        target: the name it will have.
        overwrite: whether a bundle of that name may be replaced.
        foreign: names files in a folder that would be lost if it were replaced.

    Raises:
        UsageError: the target exists, and may not be replaced or holds files that would be lost.

    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise UsageError(f"{target} is a file; choose another name")
    if target.is_mount():
        raise UsageError(f"{target} is where a disk is mounted, which cannot be replaced; choose a folder in it")
    if not overwrite:
        raise UsageError(f"{target} exists already; choose another name, or replace it with --overwrite")
    _refuse_loss(target, target, foreign)


@contextlib.contextmanager
def whole_folder(target: Path, *, overwrite: bool, foreign: Callable[[Path], list[str]]) -> Iterator[Path]:
    """Yield a folder beside ``target`` to write into; it takes the name when the block ends well, else it is removed.

    Files are synced before that, so that what has the name is complete even after a power cut.

    Args:
        target: the name it will have.
        overwrite: whether a bundle of that name may be replaced; it stays until the new one is whole.
        foreign: see :func:`check_target`; called before the work, and again before the old bundle is replaced.

    Raises:
        UsageError: the target may not be replaced, or its parent cannot be written.
        SdengineError: the disk is full, or the like.

    """
    target = Path(os.path.realpath(target))  # a link to a bundle goes on pointing to it
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _tidy(target)
        check_target(target, overwrite=overwrite, foreign=foreign)
        partial, lock = _locked_folder(target)
    except OSError as error:
        raise UsageError(f"cannot write to {target.parent}: {error.strerror}") from error
    work_done = False
    try:
        yield partial
        work_done = True
        for file in partial.rglob("*"):
            _sync(file)
        _sync(partial)
        check_target(target, overwrite=overwrite, foreign=foreign)  # others may have written meanwhile
        _put_in_place(partial, target, foreign)
        _sync(target.parent)
    except OSError as error:
        if not work_done and error.errno not in _DISK:
            raise
        raise SdengineError(f"{target} could not be written: {error.strerror}") from error
    finally:
        os.close(lock)
        _remove(partial)


def restore_replaced(target: Path) -> bool:
    """Put back a bundle that a process was replacing when it died, if there is none in its place.

    Returns:
        Whether there is a folder of that name now.

    """
    target = Path(os.path.realpath(target))
    if not target.exists():
        for old in _left(target, _OLD):
            with contextlib.suppress(OSError), _dead(old) as dead:
                if dead and (old / MANIFEST).is_file() and not target.exists():
                    old.rename(target)
    return target.is_dir()


def _put_in_place(partial: Path, target: Path, foreign: Callable[[Path], list[str]]) -> None:
    if not target.exists() or not any(target.iterdir()):
        try:
            partial.rename(target)  # replaces only an empty folder
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise UsageError(f"{target} exists already: another process wrote it meanwhile") from error
            raise
        return
    if exchanged(partial, target):
        # The old bundle is called partial now, and is removed. Nobody finds it by its name any more: what has come into
        # it by now is all that can.
        try:
            _refuse_loss(partial, target, foreign)
        except BaseException:
            exchanged(partial, target)
            raise
        return
    old = target.with_name(f".{target.name}.{_OLD}-{partial.name[-16:]}")
    lock = _lock(target)
    try:
        target.rename(old)
        try:
            _refuse_loss(old, target, foreign)
            partial.rename(target)
        except BaseException:
            old.rename(target)
            raise
        _remove(old)
    finally:
        if lock is not None:
            os.close(lock)


def _refuse_loss(folder: Path, name: Path, foreign: Callable[[Path], list[str]]) -> None:
    lost = foreign(folder)
    if lost:
        some = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        raise UsageError(
            f"{name} is not only a bundle: {some} would be lost; choose another name, or move that elsewhere"
        )


def _tidy(target: Path) -> None:
    """Remove what dead processes left that were writing ``target``."""
    restore_replaced(target)
    for left in (*_left(target, _PARTIAL), *_left(target, _OLD)):
        with contextlib.suppress(OSError), _dead(left) as dead:
            if dead:
                _remove(left)


def remove_whole(folder: Path) -> None:
    """Remove a bundle: its name is free at once, and if that is interrupted, :func:`remove_left` removes the rest.

    Raises:
        OSError: it may not be renamed.

    """
    partial = folder.with_name(f".{folder.name}.{_PARTIAL}-{secrets.token_hex(8)}")
    folder.rename(partial)
    _remove(partial)


def remove_left(parent: Path) -> None:
    """Remove what dead processes left in a folder, whatever they were writing or removing."""
    name = re.compile(rf"\.(.+)\.(?:{_PARTIAL}|{_OLD})-[0-9a-f]{{16}}")
    for match in [name.fullmatch(path.name) for path in parent.iterdir()]:
        if match is not None:
            _tidy(parent / match[1])


def _remove(folder: Path) -> None:
    """Remove a folder, its manifest first: if that is interrupted, the rest is no bundle."""
    with contextlib.suppress(OSError):
        (folder / MANIFEST).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _left(target: Path, kind: str) -> list[Path]:
    """Folders of that kind beside ``target``, the newest first."""
    name = re.compile(rf"\.{re.escape(target.name)}\.{kind}-[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):
        folders = [path for path in target.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]
        return sorted(folders, key=lambda path: -path.lstat().st_mtime)
    return []


def _locked_folder(target: Path) -> tuple[Path, int]:
    """Make a folder beside ``target`` and lock it."""
    while True:
        partial = target.with_name(f".{target.name}.{_PARTIAL}-{secrets.token_hex(8)}")
        partial.mkdir()
        lock = os.open(partial, os.O_RDONLY)
        if not locked_now(lock):
            os.close(lock)
            continue  # another process takes it for a dead one's and removes it
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), partial.stat()):
                return partial, lock
        os.close(lock)


def _lock(folder: Path) -> int | None:
    lock = os.open(folder, os.O_RDONLY)
    if locked_now(lock):
        return lock
    os.close(lock)
    return None


@contextlib.contextmanager
def _dead(folder: Path) -> Iterator[bool]:
    """Yield whether no process holds a folder; this one holds it until the block ends."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield locked_now(lock, unsupported=False)
    finally:
        os.close(lock)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
