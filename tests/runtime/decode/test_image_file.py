"""Pictures on disk: what is written comes back, whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sdengine.engines.errors import SdengineError, UsageError
from sdengine.runtime.decode.image_file import (
    ImageRecord,
    check_destination,
    images_from_pixels,
    parameters_line,
    read_record,
    save_image,
)

RECORD = ImageRecord(
    prompt="a cat, 漢字 😀 é\ntwo lines: yes",
    negative_prompt="low quality",
    seed=2**64 - 1,
    width=48,
    height=32,
    settings={
        "checkpoint": "tiny, random",
        "scheduler": "EulerAncestralDiscreteScheduler",
        "num_inference_steps": 20,
        "guidance_scale": 7.5,
        "clip_skip": 1,
        "strength": None,
        "original_size": [32, 48],
    },
    engines={"denoiser": "onnxruntime"},
)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)


def test_pixels(pixels: np.ndarray) -> None:
    pictures = images_from_pixels(pixels)
    assert [picture.size for picture in pictures] == [(48, 32)] * 2
    np.testing.assert_array_equal(np.asarray(pictures[1]), pixels[1])
    for wrong in (pixels[0], pixels.astype(np.float32), pixels[..., :1]):
        with pytest.raises(ValueError, match="pixels are uint8"):
            images_from_pixels(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.webp", "name with blanks.png"])
def test_record_comes_back(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    [picture, _] = images_from_pixels(pixels)
    save_image(picture, tmp_path / name, RECORD)
    assert read_record(tmp_path / name) == RECORD
    assert [file.name for file in tmp_path.iterdir()] == [name]
    with Image.open(tmp_path / name) as back:
        assert back.size == (48, 32)
        if name.lower().endswith("png"):
            np.testing.assert_array_equal(np.asarray(back), pixels[0])


def test_what_other_programs_read(tmp_path: Path, pixels: np.ndarray) -> None:
    [picture, _] = images_from_pixels(pixels)
    for name in ("a.png", "a.jpg", "a.webp"):
        save_image(picture, tmp_path / name, RECORD)
    line = parameters_line(RECORD)
    with Image.open(tmp_path / "a.png") as png:
        assert png.text["parameters"] == line  # type: ignore[attr-defined]
        assert json.loads(png.text["sdengine"])["seed"] == 2**64 - 1  # type: ignore[attr-defined]
    for name in ("a.jpg", "a.webp"):
        with Image.open(tmp_path / name) as other:
            comment = other.getexif().get_ifd(0x8769)[0x9286]
        assert comment[:8] == b"UNICODE\0" and comment[8:].decode("utf-16-be") == line


def test_parameters_line() -> None:
    assert parameters_line(RECORD) == (
        "a cat, 漢字 😀 é\ntwo lines: yes\n"
        "Negative prompt: low quality\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 18446744073709551615, Size: 48x32, "
        'Model: "tiny, random", Denoising strength: null, Clip skip: 2, original_size: "[32, 48]", Version: sdengine'
    )
    bare = ImageRecord(prompt="", seed=0, width=8, height=8, settings={"scheduler": "SomethingNew"})
    assert parameters_line(bare) == "\nSampler: SomethingNew, Seed: 0, Size: 8x8, Version: sdengine"


@settings(deadline=None, max_examples=50)
@given(prompt=st.text(max_size=50))
def test_any_prompt(tmp_path_factory: pytest.TempPathFactory, prompt: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.png"
    record = ImageRecord(prompt=prompt, seed=0, width=1, height=1)
    save_image(Image.new("RGB", (1, 1)), file, record)
    assert read_record(file) == record


def test_too_long_for_jpeg(tmp_path: Path) -> None:
    record = ImageRecord(prompt="word " * 10_000, seed=0, width=1, height=1)
    with pytest.raises(UsageError, match="too long for a JPEG"):
        save_image(Image.new("RGB", (1, 1)), tmp_path / "a.jpg", record)
    assert not list(tmp_path.iterdir())
    save_image(Image.new("RGB", (1, 1)), tmp_path / "a.webp", record)
    assert read_record(tmp_path / "a.webp") == record


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pmg", r"unknown image format '\.pmg'; did you mean '\.png'\? \(known: \.png, \.jpg, \.jpeg, \.webp\)"),
        ("a", "no suffix"),
        ("file/a.png", r"file is no folder"),
        ("folder.png", "is a folder"),
        ("link.png", r"link\.png: .*nowhere is no folder"),
    ],
)
def test_bad_destination(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere" / "a.png")
    with pytest.raises(UsageError, match=message):
        check_destination(tmp_path / name)
    with pytest.raises(UsageError, match=message):
        save_image(Image.new("RGB", (1, 1)), tmp_path / name, RECORD)


def test_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # a superuser may write anywhere
    with pytest.raises(UsageError, match="cannot be written to"):
        check_destination(tmp_path / "a.png")


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.png"
    save_image(Image.new("RGB", (4, 4), "red"), file, RECORD)
    before = file.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SdengineError, match="could not be written: No space left"):
        save_image(Image.new("RGB", (4, 4), "blue"), file, RECORD)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_files_without_a_record(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "bare.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "bare.jpg")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in [
        ("bare.png", "holds no record"),
        ("bare.jpg", "holds no record"),
        ("text.png", "is no image"),
        ("missing.png", "there is no image"),
    ]:
        with pytest.raises(UsageError, match=message):
            read_record(tmp_path / name)


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    save_image(Image.new("RGB", (1, 1)), tmp_path / "new" / "er" / "a.png", RECORD)
    assert read_record(tmp_path / "new" / "er" / "a.png") == RECORD
