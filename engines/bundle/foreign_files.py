"""Finds files in a folder that no export wrote, and that replacing the folder would lose."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from .manifest import MANIFEST, MANIFEST_LIMIT

__all__ = ["foreign_files"]

_ASIDE = re.compile(r"\.sdengine-[0-9a-f]{16}\.partial")
"""Written by :func:`~sdengine.engines.bundle.whole_file.write_whole`; a killed process leaves such files."""
_OLD_CACHE = re.compile(r"cache/(onnxruntime|openvino)/\.?\w+-[0-9a-f]{20}(\.[0-9a-f]{8})?")
"""Compiled models, which earlier versions wrote into the bundle."""


def foreign_files(folder: Path) -> list[str]:
    """Name the files in a folder that are no part of a bundle of any schema; all of them where there is no bundle.

    Raises:
        OSError: a folder cannot be read.

    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not _is_folder(path)]
    listed = _listed(folder / MANIFEST)
    if listed is None:
        return names
    own = {*listed, MANIFEST}
    plans = tuple(name.removesuffix(".plan") for name in listed if name.endswith(".plan"))
    built = {str(PurePosixPath(plan).parent) for plan in plans}

    def known(name: str) -> bool:
        path = PurePosixPath(name)
        if name in own or _OLD_CACHE.fullmatch(name):
            return True
        if str(path.parent) in built and path.suffix in (".plan", ".json", ".kernels", ".cache"):
            return True  # plans that were replaced, kernels of theirs
        return _ASIDE.fullmatch(path.name) is not None

    return [name for name in names if not known(name)]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _listed(manifest: Path) -> Mapping[str, Any] | None:
    """Return the files that a manifest lists, or None if it is no manifest of ours: other programs use the name too."""
    if not manifest.is_file() or manifest.stat().st_size > MANIFEST_LIMIT:
        return None
    try:
        content = msgspec.json.decode(manifest.read_bytes())
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int) or "networks" not in content:
        return None
    files = content.get("files")
    return files if isinstance(files, dict) else None
