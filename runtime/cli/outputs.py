"""Where a command writes its images: checked before any is generated, written whole or not at all."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...engines.bundle.whole_file import write_whole
from ...engines.errors import SdengineError, UsageError
from ..request.request import Request
from ..result import Result

__all__ = ["check_standard_output", "output_files", "save_arrays", "save_embeds"]


def output_files(output: Path | None, request: Request) -> list[Path]:
    """Return the file of each image of a request.

    Raises:
        UsageError: one of them cannot be written; the text says why.

    """
    from ..decode.image_file import check_destination, check_writable

    as_images = request.output_type == "pil"
    suffix = {"pil": ".png", "embeds": ".safetensors"}.get(request.output_type, ".npy")
    destination = output or Path(f"sdengine{suffix}")
    if not destination.name:
        raise UsageError(f"--output {str(destination)!r} names no file")
    if not as_images and destination.suffix != suffix:
        raise UsageError(f"{destination}: --output-type {request.output_type} writes {suffix}")
    count = request.prompts * request.num_images_per_prompt
    numbered = [destination.with_stem(f"{destination.stem}-{i + 1}") for i in range(count)]
    files = [destination] if count == 1 else numbered
    for file in files:
        if as_images:
            check_destination(file)
        else:
            check_writable(file)
    return files


def save_arrays(files: Sequence[Path], arrays: Sequence[Any]) -> None:
    """Write arrays as ``.npy``.

    Raises:
        SdengineError: the disk is full, or the like; an older file stays.

    """
    for file, array in zip(files, arrays, strict=True):
        content = io.BytesIO()  # numpy does not say why it could not write to a file
        np.save(content, array[None])
        _write(file, content.getbuffer())


def save_embeds(files: Sequence[Path], result: Result) -> None:
    """Write each image's embeddings as ``.safetensors``, which ``--embeds`` reads.

    Raises:
        SdengineError: the disk is full, or the like; an older file stays.

    """
    from ..prompt import embeddings_file

    both = {"image_embeds": result.image_embeds, "negative_image_embeds": result.negative_image_embeds}
    for i, file in enumerate(files):
        _write(file, embeddings_file({name: a[i : i + 1] for name, a in both.items() if a is not None}))


def _write(file: Path, content: bytes | memoryview) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(file) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise SdengineError(f"{file} could not be written: {error.strerror or error}") from error


def check_standard_output() -> None:
    """Check before the work that its result can be printed.

    Raises:
        UsageError: standard output is closed, or takes nothing.

    """
    try:
        os.write(1, b"")
    except OSError as error:
        raise UsageError(f"standard output cannot be written to: {error.strerror}") from error
