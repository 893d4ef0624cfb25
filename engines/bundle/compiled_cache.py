"""What an engine made of a graph, cached for the next start on this machine.

It lies in the user's own cache folder, see :mod:`.user_cache`, never in the bundle: it decides which native code runs,
and someone who could write to it would choose that code. It may be deleted; that costs only time. The first line of a
file is JSON: what the file was made from, and the hash of the bytes after that line. The hash finds damage. It does not
prove where the file came from; the permissions of the folder do. The bytes that are hashed are the bytes that are used.
"""

import contextlib
import functools
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path

import msgspec

from .bundle import Bundle
from .user_cache import CacheUnusableError, cached_file, prune, read_cached, write_cached

__all__ = ["LIMIT", "CompiledCache", "processor"]

LIMIT = 64 * 2**20
"""Largest compiled model that is cached, in bytes. Compiled models of large networks hold a second copy of their
weights, and reading that takes about as long as compiling."""

_FORMAT = "3"
"""Raised when this code would make another model of the same graph with the same library."""
_HEAD = 2**14
"""Largest first line, in bytes."""
_FILES, _TOTAL = 256, 2**30
"""Most files and bytes that are cached for one engine, of all bundles; those used longest ago are removed."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    made_from: dict[str, str]
    sha256: str


@functools.cache
def processor() -> str:
    """Return a hash of the processor's name and abilities: a compiled model uses its instructions."""
    description = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "flags", "Features")):
                description.append(line)
            elif not line.strip():
                break  # the first core stands for all
    return hashlib.sha256("\n".join(description).encode()).hexdigest()


class CompiledCache:
    """The compiled model of one component for one engine, in the user's cache.

    Args:
        bundle: the bundle.
        component: which component.
        graph: name of its graph's file, which has been compared with its hash.
        engine: name of the engine.
        settings: everything else that the compiled model depends on: the library's version, precision, threads.

    Attributes:
        notes: why nothing could be cached, or why what was cached is not used.

    """

    def __init__(self, bundle: Bundle, component: str, graph: str, *, engine: str, settings: Mapping[str, str]) -> None:
        self.notes: list[str] = []
        self._component = component
        manifest = bundle.manifest
        network = bundle.component(component).network
        self._fits_limit = manifest.files[manifest.networks[network].weights].bytes <= LIMIT
        self._made_from = {
            "format": _FORMAT,
            "engine": engine,
            "component": component,
            # Of the bytes that are used, not what the manifest says of them.
            "graph": bundle.checks.check(graph, bundle.file(graph)),
            "weights": bundle.weights(network).identity,
            "processor": processor(),
            **settings,
        }
        text = msgspec.json.encode(self._made_from, order="deterministic")
        name = f"{component}-{hashlib.sha256(text).hexdigest()[:32]}"
        self.file: Path | None = None
        if self._fits_limit:
            try:
                self.file = cached_file("compiled", engine, name)
            except CacheUnusableError as error:
                self.notes.append(f"the next start compiles again: {error}")

    def read(self) -> memoryview | None:
        """Return the compiled model, or None where there is none that can be trusted.

        The memory is writable and is not copied: some libraries compute with the constants in it.
        """
        if self.file is None:
            return None
        try:
            content = read_cached(self.file)
        except CacheUnusableError as error:
            self.notes.append(f"compiled again: {error}")
            return None
        if content is None:
            return None
        head = bytes(content[:_HEAD]).partition(b"\n")[0]
        body = content[len(head) + 1 :]
        try:
            record = msgspec.json.decode(head, type=_Record)
        except (msgspec.DecodeError, UnicodeDecodeError):
            record = None
        if record is None or record.made_from != self._made_from or record.sha256 != hashlib.sha256(body).hexdigest():
            self.notes.append(f"{self.file} is damaged; it was not used and is made again")
            return None
        with contextlib.suppress(OSError):
            self.file.touch()  # what was used last is removed last
        return body

    def write(self, body: bytes) -> None:
        """Cache the compiled model, unless it is large; where that fails, note it."""
        if self.file is None or len(body) > LIMIT:
            return
        record = _Record(made_from=self._made_from, sha256=hashlib.sha256(body).hexdigest())
        try:
            write_cached(self.file, b"".join((msgspec.json.encode(record), b"\n", body)))
        except CacheUnusableError as error:
            self.notes.append(f"the next start compiles again: {error}")
        else:
            prune(self.file.parent, "*-*", files=_FILES, size=_TOTAL)

    def fits_limit(self) -> bool:
        """Return whether the network is small enough for its compiled model to be cached."""
        return self._fits_limit
