"""Files of images that anybody may have made: read, or refused with a UsageError; only if they are regular files."""

import io
import os
import random
import warnings
from pathlib import Path

import pytest
from PIL import Image
from sdengine.engines.errors import UsageError
from sdengine.runtime.request.input_images import load_images

from ..mutated import mutated

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")


def _whole(kind: str) -> bytes:
    content = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(content, kind)
    return content.getvalue()


def _read_mutated(folder: Path, count: int, seed: int) -> None:
    numbers = random.Random(seed)
    read = 0
    for i in range(count):
        kind = FORMATS[i % len(FORMATS)]
        file = folder / f"picture.{kind.lower()}"
        file.write_bytes(mutated(_whole(kind), numbers))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about what it makes the best of
            try:
                [picture] = load_images(file, "image", [])
                assert isinstance(picture, Image.Image)
                picture.load()
                read += 1
            except UsageError as error:
                assert "image" in str(error)  # noqa: PT017 - most are read, some are refused
    assert read > count / 10


def test_mutated_pictures(tmp_path: Path) -> None:
    _read_mutated(tmp_path, 300, seed=1)


@pytest.mark.slow
def test_two_thousand_mutated_pictures(tmp_path: Path) -> None:
    _read_mutated(tmp_path, 2000, seed=2)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in (tmp_path / "pipe.png", tmp_path, Path("/dev/zero"), Path("/dev/stdin")):
        with pytest.raises(UsageError, match="image"):
            load_images(name, "image", [])
