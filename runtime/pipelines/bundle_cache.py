"""Bundles that were exported at first use: one for each checkpoint, precision, engine and sizes.

They lie in ``bundles`` in the user's cache folder (:mod:`sdengine.engines.user_cache`), named after a hash of all that
decides what is in them: the contents of the checkpoint's files, the options of the export and the version of this
package. A checkpoint that has changed under the same name is another one. A bundle appears whole or not at all; who
exports it holds a lock, and others wait for him. Those unused for longest are removed beyond ``$SDENGINE_CACHE_LIMIT``.
"""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec

from ...engines.bundle.folder_lock import locked_now
from ...engines.bundle.foreign_files import foreign_files
from ...engines.bundle.manifest import MANIFEST, SCHEMA
from ...engines.bundle.user_cache import CacheUnusableError, cached_file
from ...engines.bundle.whole_folder import remove_left, remove_whole
from ...engines.errors import SdengineError, UsageError
from .child import run_command
from .identity import content_hash, files_of

__all__ = ["LIMIT", "CachedBundle", "Recipe", "cache_limit", "cached_bundle", "cached_bundles", "in_use", "remove"]

LIMIT = "64GB"
"""What bundles may take where ``$SDENGINE_CACHE_LIMIT`` does not say."""

_FOLDER = "bundles"
_KEY = re.compile(r".+-[0-9a-f]{24}")
"""Names that :meth:`Recipe.key` gives. What else lies there is somebody's, and is neither counted nor removed."""
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_POLL = 0.2  # seconds


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a bundle is exported from, and how.

    Attributes:
        name: what the checkpoint is called, for people.
        checkpoint: its folder or file.
        variant: which weights of a folder.
        vae: folder or file of another VAE.
        controlnets: folders or files.
        prior: folder of a Kandinsky decoder's prior.
        safety_checker: whether the checkpoint's safety checker is in it.
        engine: that it is exported for.
        precision: of its graphs.
        sizes: as for ``sdengine export --sizes``, or None.
        batch: as for ``sdengine export --batch``.

    """

    name: str
    checkpoint: Path
    variant: str | None = None
    vae: Path | None = None
    controlnets: tuple[Path, ...] = ()
    prior: Path | None = None
    safety_checker: bool = True
    engine: str
    precision: str
    sizes: str | None = None
    batch: str = "1..4"

    def key(self) -> str:
        """Return the name of its bundle.

        Raises:
            CheckpointError: a file cannot be read.

        """
        sources = [self.checkpoint, *filter(None, (self.vae, self.prior)), *self.controlnets]
        named = ("name", "checkpoint", "vae", "prior", "controlnets")
        options = {option: value for option, value in asdict(self).items() if option not in named}
        whole = {
            "sources": [content_hash(files_of(source).items()) for source in sources],
            "vae": self.vae is not None,
            "prior": self.prior is not None,
            "controlnets": len(self.controlnets),
            "version": version("sdengine"),
            "schema": SCHEMA,
            **options,
        }
        short = re.sub(r"[^\w.-]+", "-", Path(self.name).name).strip("-.")[:40] or "checkpoint"
        digest = hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()[:24]
        return f"{short}-{self.precision}-{self.engine}-{digest}"

    def arguments(self, target: Path) -> list[str]:
        """Return the arguments of ``sdengine`` that export it."""
        options = {
            "--output": target,
            "--engine": self.engine,
            "--precision": self.precision,
            "--sizes": self.sizes,
            "--batch": self.batch,
            "--variant": self.variant,
            "--vae": self.vae,
            "--prior": self.prior,
        }
        named = [str(text) for pair in options.items() if pair[1] is not None for text in pair]
        nets = [text for net in self.controlnets for text in ("--controlnet", str(net))]
        without = [] if self.safety_checker else ["--no-safety-checker"]
        return ["export", str(self.checkpoint), *named, *nets, *without]


def cached_bundle(recipe: Recipe, *, say: Callable[[str], None], again: bool = False) -> Path:
    """Return the bundle of a recipe; it is exported by a process of its own where it is not there yet.

    Args:
        recipe: what to export.
        say: told about progress, a line at a time.
        again: replace the bundle that is there, which is damaged.

    Raises:
        SdengineError: the cache cannot be used, or the export failed; the text says why.

    """
    key = recipe.key()
    try:
        bundle = cached_file(_FOLDER, key)
        lock = cached_file(_FOLDER, f".{key}.lock")
        with _locked(lock, say) as descriptor:
            if again or not (bundle / MANIFEST).is_file():
                say(f"first use of {recipe.name} in {recipe.precision} for {recipe.engine}: exporting it to {bundle}")
                replace = ["--overwrite"] if bundle.exists() else []
                run_command([*recipe.arguments(bundle), *replace], say=say, held=[descriptor])
    except (CacheUnusableError, OSError) as error:
        raise SdengineError(
            f"bundles cannot be cached: {error}; set SDENGINE_CACHE to a folder of your own, or export the checkpoint "
            "with `sdengine export` and give the bundle's path"
        ) from error
    with contextlib.suppress(OSError):  # when it was used last
        os.utime(bundle)
    _prune(keep=bundle, say=say)
    return bundle


@contextlib.contextmanager
def _locked(file: Path, say: Callable[[str], None]) -> Iterator[int]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        waited = False
        while not locked_now(descriptor):
            if not waited:
                say("another process is exporting it: waiting")
            waited = True
            time.sleep(_POLL)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_use(bundle: Path) -> Iterator[None]:
    """Keep a bundle from being removed while it is open."""
    descriptor = os.open(bundle, os.O_RDONLY)
    try:
        locked_now(descriptor, shared=True)
        yield
    finally:
        os.close(descriptor)


class _Header(msgspec.Struct):
    """What is read of a manifest, of whatever schema; other fields are not looked at."""

    source: str = ""
    engines: list[str] = []
    components: dict[str, "_Component"] = {}


class _Component(msgspec.Struct):
    graphs: dict[str, object] = {}


@dataclass(frozen=True, kw_only=True)
class CachedBundle:
    """A bundle in the cache.

    Attributes:
        path: its folder.
        source: name of the checkpoint.
        engines: that it was exported for.
        precisions: of its graphs.
        bytes: that its files take; weights that are linked to the checkpoint's take none beside it.
        used: when it was opened last, in seconds since 1970.

    """

    path: Path
    source: str
    engines: tuple[str, ...]
    precisions: tuple[str, ...]
    bytes: int
    used: float


def cached_bundles() -> list[CachedBundle]:
    """Return what is in the cache, what was used last first.

    Raises:
        SdengineError: the cache cannot be used.

    """
    try:
        folder = cached_file(_FOLDER, "any").parent
    except CacheUnusableError as error:
        raise SdengineError(f"the cache cannot be used: {error}") from error
    remove_left(folder)
    bundles = []
    for path in folder.iterdir():
        if path.is_symlink() or not _KEY.fullmatch(path.name):
            continue
        try:
            header = msgspec.json.decode((path / MANIFEST).read_bytes(), type=_Header)
            used = path.stat().st_mtime
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        except (OSError, msgspec.MsgspecError):
            continue  # being written, or removed, by another process
        precisions = dict.fromkeys(p for component in header.components.values() for p in component.graphs)
        bundles.append(
            CachedBundle(
                path=path,
                source=header.source,
                engines=tuple(header.engines),
                precisions=tuple(precisions),
                bytes=size,
                used=used,
            )
        )
    return sorted(bundles, key=lambda bundle: -bundle.used)


def remove(bundle: CachedBundle) -> str:
    """Remove a bundle from the cache; return why it stays, or an empty text if it is gone."""
    try:
        descriptor = os.open(bundle.path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if not locked_now(descriptor):
                return "is open in a process"
            if lost := foreign_files(bundle.path):
                return f"holds files that are no bundle's ({', '.join(lost[:3])})"
            remove_whole(bundle.path)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be removed ({error.strerror})"
    return ""


def cache_limit() -> int:
    """Return how many bytes bundles may take.

    Raises:
        UsageError: ``$SDENGINE_CACHE_LIMIT`` is no size.

    """
    text = os.environ.get("SDENGINE_CACHE_LIMIT") or LIMIT
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", text.upper())
    if match is None:
        raise UsageError(f"SDENGINE_CACHE_LIMIT={text!r} is no size; write 64GB, for instance")
    return int(float(match[1]) * _UNITS[match[2].removesuffix("B")])


def _prune(*, keep: Path, say: Callable[[str], None]) -> None:
    """Remove the bundles that were used longest ago, beyond the limit; never the one in hand, or one that is open."""
    limit, bundles = cache_limit(), cached_bundles()
    total = sum(bundle.bytes for bundle in bundles)
    for bundle in reversed(bundles):
        if total > limit and bundle.path != keep and not remove(bundle):
            total -= bundle.bytes
            say(f"removed {bundle.path.name} from the cache, which holds {limit / 1e9:g} GB (SDENGINE_CACHE_LIMIT)")
