"""Compares a bundle's files with their hashes before they are used.

Hashing SDXL's weights takes seconds, so what was compared is remembered in the user's cache, by everything that
changes when a file does: its size, times, inode and device. The time of the last status change (``ctime``) cannot be
set by a program: a file that was written to and given its old times back is hashed again. A file that changed within
the last two seconds is not remembered, because the next change could carry the same time.
"""

import hashlib
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from ..errors import BundleError, DamagedBundleError, UsageError
from .manifest import FileRecord
from .user_cache import CacheUnusableError, cached_file, prune, read_cached, write_cached

__all__ = ["HASH_POLICIES", "FileChecks", "FileState", "HashPolicy", "file_sha256", "state_of"]

HashPolicy = Literal["always", "once", "never"]
"""When files are hashed: at every start; large ones only at the first start and after a change; weights never."""

HASH_POLICIES: tuple[str, ...] = get_args(HashPolicy)

_SMALL = 2**20
"""Bytes below which a file is hashed at every start: that costs less than remembering it."""
_SETTLED_NS = 2 * 10**9
_BUNDLES, _BYTES = 256, 64 * 2**20
"""Bundles that are remembered at most, and bytes of what is remembered."""


def file_sha256(path: Path) -> str:
    """Hash a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileState(NamedTuple):
    """What changes when a file does."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @property
    def settled(self) -> bool:
        """Whether the next change will carry another time, so that what is remembered with this state holds."""
        return time.time_ns() - max(self.mtime_ns, self.ctime_ns) > _SETTLED_NS


class _Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    state: FileState


@dataclass
class FileChecks:
    """The files of one open bundle, and which of them have been compared with their hashes. For several threads.

    Attributes:
        policy: when files are hashed.
        hashed_bytes: bytes that were hashed since the bundle was opened.
        remembered_bytes: bytes that were not, because an earlier start had compared them.
        unchecked_bytes: bytes of weights that were not compared with anything (policy ``never``).
        hash_ms: milliseconds that hashing took; components that are opened at once hash at once.
        notes: which weights were not compared, and why nothing could be remembered.

    """

    folder: Path
    records: Mapping[str, FileRecord]
    policy: HashPolicy
    hashed_bytes: int = 0
    remembered_bytes: int = 0
    unchecked_bytes: int = 0
    hash_ms: float = 0.0
    notes: list[str] = field(default_factory=list)
    _checked: dict[str, tuple[FileState, str]] = field(default_factory=dict)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _remembered: dict[str, _Remembered] | None = None

    def __post_init__(self) -> None:
        if self.policy not in HASH_POLICIES:
            raise UsageError(f"verify={self.policy!r} is none of {', '.join(HASH_POLICIES)}")

    def check(self, name: str, file: Path, *, skippable: bool = False) -> str:
        """Compare a file with its hash, unless that has been done since it last changed.

        Args:
            name: its name in the manifest.
            file: where it is.
            skippable: whether the policy ``never`` is about this file.

        Returns:
            What identifies the bytes: their SHA-256, or what is known of a file that was not hashed.

        Raises:
            DamagedBundleError: it cannot be read, or its contents have changed.
            BundleError: the manifest does not list it.

        """
        record = self.records.get(name)
        if record is None:
            raise BundleError(f"{self.folder}: the manifest lists no hash for {name}")
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:  # components of one network wait for its file, others do not
            try:
                state = state_of(file)
                before = self._checked.get(name)
                if before is None or before[0] != state:
                    before = state, self._identified(name, file, state, record, skippable=skippable)
                    self._checked[name] = before
            except OSError as error:
                raise DamagedBundleError(f"{self.folder}: {name} cannot be read: {error.strerror}") from error
        return before[1]

    def report(self) -> dict[str, Any]:
        """Return what was done, as JSON values."""
        return {
            "verify": self.policy,
            "hashed_bytes": self.hashed_bytes,
            "remembered_bytes": self.remembered_bytes,
            "unchecked_bytes": self.unchecked_bytes,
            "hash_ms": round(self.hash_ms, 3),
        }

    def _identified(self, name: str, file: Path, state: FileState, record: FileRecord, *, skippable: bool) -> str:
        if self.policy == "never" and skippable:
            with self._lock:
                self.unchecked_bytes += state.size
                self.notes.append(f"{name} was not compared with its hash: verify is never")
            return "unchecked " + " ".join(map(str, state))
        large = state.size >= _SMALL
        if large and self.policy != "always" and self._known().get(name) == _Remembered(record.sha256, state):
            with self._lock:
                self.remembered_bytes += state.size
            return record.sha256
        started = time.perf_counter()
        changed = file_sha256(file) != record.sha256 or state_of(file) != state
        with self._lock:
            self.hashed_bytes += state.size
            self.hash_ms += (time.perf_counter() - started) * 1e3
        if changed:
            raise DamagedBundleError(
                f"{self.folder} is damaged: {name} is not the file that was exported (its SHA-256 differs); "
                "copy it again, or export the checkpoint again"
            )
        if large and state.settled:
            self._remember(name, _Remembered(record.sha256, state))
        return record.sha256

    def _known(self) -> dict[str, _Remembered]:
        with self._lock:
            if self._remembered is None:
                self._remembered = {}
                try:
                    content = read_cached(self._record_file())
                    if content is not None:
                        self._remembered = msgspec.json.decode(content, type=dict[str, _Remembered])
                except (CacheUnusableError, msgspec.MsgspecError) as error:
                    self.notes.append(f"what was verified before is not known: {error}")
            return self._remembered

    def _remember(self, name: str, remembered: _Remembered) -> None:
        known = self._known()
        with self._lock:
            known[name] = remembered
            try:
                file = self._record_file()
                write_cached(file, msgspec.json.encode(known))
            except CacheUnusableError as error:
                self.notes.append(f"the next start hashes {name} again: {error}")
                return
        prune(file.parent, "*.json", files=_BUNDLES, size=_BYTES)

    def _record_file(self) -> Path:
        return cached_file("verified", hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:32] + ".json")


def state_of(file: Path) -> FileState:
    """Return what changes when a file does.

    Raises:
        OSError: it cannot be read.

    """
    status = file.stat()
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
