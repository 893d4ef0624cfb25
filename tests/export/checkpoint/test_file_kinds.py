"""Files that are not what their names say: the message says what they are, and what to do."""

import gzip
import io
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from sdengine.engines.errors import CheckpointError
from sdengine.export.checkpoint import open_checkpoint, open_controlnet

FolderOf = Callable[[str], Path]
SAFETENSORS = save({"a": torch.ones(40)})


def _torch(**options: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.ones(40)}, file, **options)
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.safetensors", SAFETENSORS)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("model.safetensors"))
    return file.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4265146304\n"
EVERYWHERE = {
    "pointer": (POINTER, r"it is a Git LFS pointer, not the weights: fetch them with `git lfs pull`"),
    "page": (b"<!DOCTYPE html>\n<html><body>Please log in</body></html>", r"it is an HTML page, .*/resolve/"),
    "page in upper case": (b"\xef\xbb\xbf \n<HTML>", "it is an HTML page"),
    "answer": (b'{"error": "Repository not found"}', "the answer of a server, 'Repository not found'"),
    "refusal": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "it is an XML document"),
    "text": (b"Entry not found\n", r"it is text \('Entry not found'\), not weights"),
    "json": (b'{"a": 1}', "it is JSON text"),
    "zip": (_zip(), r"it is a zip archive \(of model\.safetensors\): unpack it"),
    "gzip": (gzip.compress(SAFETENSORS), "it is compressed with gzip: decompress it"),
    "tar": (_tar(), "it is a tar archive"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(40), "it is a GGUF file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(40), "it is a PNG image"),
    "empty": (b"", "it is empty: download"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "noise": (b"\x91\xfe" * 40, "it is of no known kind"),
}
NAMED = {
    "torch as safetensors": (_torch(), ".safetensors", "it is a file of torch.save: name it .ckpt"),
    "old torch as safetensors": (
        _torch(_use_new_zipfile_serialization=False),
        ".safetensors",
        "it is a pickle of Python: if torch.save wrote it, name it .ckpt",
    ),
    "pickle as safetensors": (pickle.dumps([1]), ".safetensors", "it is a pickle of Python"),
    "safetensors as ckpt": (SAFETENSORS, ".ckpt", r"it is a \.safetensors file: name it so"),
    "safetensors as bin": (SAFETENSORS, ".bin", r"it is a \.safetensors file: name it so"),
    "half a safetensors": (
        SAFETENSORS[: len(SAFETENSORS) // 2 + 40],
        ".safetensors",
        "it is cut off, download it again",
    ),
    "half a header": (SAFETENSORS[:30], ".safetensors", "it is cut off, download it again"),
    "half a torch": (_torch()[:-100], ".ckpt", "it is a zip archive that is cut off or damaged"),
    "plain pickle": (pickle.dumps({"a": 1}), ".ckpt", "it is a plain Python pickle"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt"])
@pytest.mark.parametrize("kind", EVERYWHERE)
def test_what_is_no_weights_file_at_all(tmp_path: Path, kind: str, suffix: str) -> None:
    content, message = EVERYWHERE[kind]
    _refused(tmp_path / f"model{suffix}", content, message)


@pytest.mark.parametrize("kind", NAMED)
def test_what_has_the_wrong_name(tmp_path: Path, kind: str) -> None:
    content, suffix, message = NAMED[kind]
    _refused(tmp_path / f"model{suffix}", content, message)


def _refused(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    for opened in (open_checkpoint, open_controlnet):
        with pytest.raises(CheckpointError, match=message) as caught:
            opened(file)
        assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["unet/diffusion_pytorch_model.safetensors", "model_index.json", "unet/config.json", "tokenizer/vocab.json"],
)
def test_a_repository_that_was_cloned_without_lfs(folder_of: FolderOf, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(folder_of("sd1"), tmp_path / "copy"))
    (folder / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"{name}.* it is a Git LFS pointer"):
        open_checkpoint(folder)


def test_another_suffix(tmp_path: Path) -> None:
    _refused(tmp_path / "model.gguf", EVERYWHERE["gguf"][0], r"is none of \.safetensors, .*: it is a GGUF file")
