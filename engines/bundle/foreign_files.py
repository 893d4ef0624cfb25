"""Finds files in a folder that no export wrote, and that replacing the folder would lose.

A manifest cannot decide that alone: its author can list any file, with its hash. A file is one of a bundle's if
the manifest lists it, its name is one that an export gives, and it begins as such a file does. A bundle may be damaged:
exporting it again is how it is repaired, so that contents are not compared with hashes, and of a manifest that cannot
be read any more only the beginning counts.
"""

import re
import stat
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from ..files.file_kind import starts_as_safetensors
from .manifest import MANIFEST, MANIFEST_LIMIT

__all__ = ["PLAN_NAME", "foreign_files"]

_NAME = r"[A-Za-z0-9_]+"
_PRECISION = r"(?:fp32|bf16|fp16)"
_FOLDER = rf"engines/tensorrt[\w.+-]*/{_NAME}\.{_PRECISION}(?:\.[0-9a-f]{{12}})?"
PLAN_NAME = re.compile(rf"{_FOLDER}\.plan")
"""Names of plans; a plan that is replaced is removed."""

_BEGINNING = re.compile(rb'\{\s*"schema":\s*\d+,\s*"family":')
"""Of a manifest; other programs use its name, too."""
_HEAD = 4096


def _object(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def _merges(head: bytes) -> bool:
    """Whether these are the first lines of a ``merges.txt``: two tokens each, after a line with the version."""
    lines = head.splitlines()[: -1 if len(head) == _HEAD else None]
    return all(len(line.split()) == 2 for line in lines if line.strip())


def _graph(head: bytes) -> bool:
    return head.startswith(b"\x08")  # ModelProto's first field, ir_version


def _anything(head: bytes) -> bool:
    return True


_WRITTEN: tuple[tuple[re.Pattern[str], Callable[[bytes], bool]], ...] = (
    (re.compile(r"(?:prior_)?scheduler\.json|(?:image_processor|feature_extractor)\.json"), _object),
    (
        re.compile(
            rf"(?:{_NAME}_)?tokenizer(?:_\d+)?/"
            r"(?:tokenizer|vocab|tokenizer_config|special_tokens_map|added_tokens)\.json"
        ),
        _object,
    ),
    (re.compile(rf"(?:{_NAME}_)?tokenizer(?:_\d+)?/merges\.txt"), _merges),
    (re.compile(rf"components/{_NAME}/weights\.safetensors"), starts_as_safetensors),
    (re.compile(rf"components/{_NAME}/{_NAME}\.{_PRECISION}(?:\.contrib)?\.onnx"), _graph),
    (PLAN_NAME, _anything),
    (re.compile(rf"{_FOLDER}\.json"), _object),
    (re.compile(r"engines/tensorrt[\w.+-]*/timing\.cache"), _anything),
)
"""What an export and a build write: its name, and whether a file can be one by its first bytes."""

_UNLISTED = (
    re.compile(r"(?:.*/)?\.sdengine-[0-9a-f]{16}\.partial"),  # what a killed process left
    re.compile(rf"{_FOLDER}\.(?:plan|json|kernels)|engines/tensorrt[\w.+-]*/timing\.cache"),  # of replaced plans
    re.compile(r"cache/(onnxruntime|openvino)/\.?\w+-[0-9a-f]{20}(\.[0-9a-f]{8})?"),  # of earlier versions
)
"""Names of files that the manifest does not list, and that may lie in a bundle all the same."""


def foreign_files(folder: Path) -> list[str]:
    """Name the files in a folder that are no part of a bundle of any schema; all of them where there is no bundle.

    Raises:
        OSError: a folder cannot be read.

    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not _is_folder(path)]
    listed = _listed(folder / MANIFEST, names)

    def known(name: str) -> bool:
        if name == MANIFEST or any(pattern.fullmatch(name) for pattern in _UNLISTED):
            return bool(listed)
        return name in listed and _can_be_ours(folder / name, name)

    return [name for name in names if not known(name)]


def _can_be_ours(file: Path, name: str) -> bool:
    fits = next((begins for pattern, begins in _WRITTEN if pattern.fullmatch(name)), None)
    if fits is None or not stat.S_ISREG(file.lstat().st_mode):
        return False
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    return not head.strip(b"\0") or fits(head)  # a disk that failed may have left zeros


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _listed(manifest: Path, names: Collection[str]) -> Collection[str]:
    """Return the files that a manifest lists: none if it is not ours, all of ``names`` if it is ours and damaged."""
    if manifest.is_symlink() or not manifest.is_file() or manifest.stat().st_size > MANIFEST_LIMIT:
        return ()
    text = manifest.read_bytes()
    try:
        content = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return names if _BEGINNING.match(text) else ()
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int) or "networks" not in content:
        return ()
    files = content.get("files")
    return files if isinstance(files, dict) else ()
