"""Every file is compared with its hash before it is used; large ones once, until they change."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdengine.engines.bundle import file_checks
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import BundleError, DamagedBundleError, UsageError
from sdengine.runtime import Pipeline

from ...bundles import bundle_of

QUICK = {"num_inference_steps": 2, "height": 32, "width": 32, "seed": 1, "output_type": "np"}
ENGINES = ["auto", "onnxruntime", "openvino", "torch"]
WEIGHTS = "components/unet/weights.safetensors"
YEAR = 365 * 24 * 3600


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of one's own, whose files have lain there for a while, and a cache of one's own."""
    monkeypatch.setenv("SDENGINE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(bundle_of("sdxl"), tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny files count as large ones, and as if they had lain there for long."""
    monkeypatch.setattr(file_checks, "_SMALL", 0)
    real = time.time_ns
    monkeypatch.setattr(file_checks.time, "time_ns", lambda: real() + YEAR * 10**9)


def _draw(folder: Path, engine: str = "onnxruntime", **opening: Any) -> Any:
    with Pipeline.load(folder, engine=engine, precision="fp32", **opening) as pipeline:
        return pipeline("a red circle", **QUICK)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x40
    file.write_bytes(data)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "name",
    [WEIGHTS, "components/vae/weights.safetensors", "components/text_encoder_2/weights.safetensors", "scheduler.json"],
)
def test_a_flipped_byte_is_found_on_every_engine(folder: Path, engine: str, name: str) -> None:
    _draw(folder, engine)
    _flip(folder / name)
    with pytest.raises(DamagedBundleError, match=f"{name} is not the file that was exported"):
        _draw(folder, engine)


@pytest.mark.parametrize("verify", ["always", "once", "never"])
def test_tokenizers_are_compared_whatever_is_asked_for(folder: Path, verify: str) -> None:
    for file in sorted((folder / "tokenizer_2").iterdir()):
        whole = file.read_bytes()
        _flip(file)
        with pytest.raises(DamagedBundleError, match=file.name):
            _draw(folder, verify=verify)
        file.write_bytes(whole)
    (folder / "tokenizer_2" / "added_tokens.json").write_text('{"circle": 5}')
    with pytest.raises(BundleError, match=r"does not list tokenizer_2/added_tokens\.json"):
        _draw(folder, verify=verify)
    command = [sys.executable, "-m", "sdengine.runtime", "inspect", str(folder), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 1, "what refuses to run is not called whole"
    assert "does not list tokenizer_2/added_tokens.json" in checked.stderr


@pytest.mark.usefixtures("remembering")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_damage_leaves_nothing_behind(folder: Path, engine: str) -> None:
    """What was made of damaged weights does not outlive them, nor does what was remembered of whole ones."""
    expected = _draw(folder, engine).images
    whole = (folder / WEIGHTS).read_bytes()
    _flip(folder / WEIGHTS)
    damaged = _draw(folder, engine, verify="never")
    assert not np.array_equal(damaged.images, expected)
    assert any(WEIGHTS in warning and "verify is never" in warning for warning in damaged.warnings)
    assert damaged.checks["unchecked_bytes"] > len(whole)
    (folder / WEIGHTS).write_bytes(whole)
    assert np.array_equal(_draw(folder, engine).images, expected)


def _rewrite(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _replace(file: Path, data: bytes) -> None:
    aside = file.with_name("aside")
    aside.write_bytes(data)
    shutil.copystat(file, aside)
    aside.replace(file)


@pytest.mark.usefixtures("remembering")
@pytest.mark.parametrize("change", [_rewrite, _replace])
def test_what_was_remembered_holds_until_the_file_changes(folder: Path, change: Callable[[Path, bytes], None]) -> None:
    size = sum(record.bytes for record in Bundle(folder).manifest.files.values())
    first = _draw(folder).checks
    assert first["hashed_bytes"] > size / 2
    assert first["remembered_bytes"] == 0
    second = _draw(folder).checks
    assert second["hashed_bytes"] == 0
    assert second["remembered_bytes"] == first["hashed_bytes"]
    third = _draw(folder, verify="always").checks
    assert (third["hashed_bytes"], third["remembered_bytes"]) == (first["hashed_bytes"], 0)

    file = folder / WEIGHTS
    times, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    change(file, bytes(data))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as rsync or tar would
    with pytest.raises(DamagedBundleError, match=WEIGHTS):
        _draw(folder)


def test_a_file_that_has_just_changed_is_not_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_checks, "_SMALL", 0)
    (folder / WEIGHTS).touch()
    _draw(folder)
    bundle = Bundle(folder)
    bundle.checked_weights("unet")
    assert bundle.checks.remembered_bytes == 0


def test_a_file_that_changes_while_the_bundle_is_open_is_hashed_again(folder: Path) -> None:
    with Pipeline.load(folder, engine="onnxruntime", low_memory=True) as pipeline:
        pipeline("a red circle", **QUICK)
        _flip(folder / WEIGHTS)
        with pytest.raises(DamagedBundleError, match=WEIGHTS):
            pipeline("a red circle", **QUICK)


@pytest.mark.usefixtures("remembering")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"components/unet/weights.safetensors": 5}'])
def test_a_damaged_memory_costs_time_only(folder: Path, content: bytes) -> None:
    _draw(folder)
    [file] = (folder.parent / "cache" / "verified").iterdir()
    file.write_bytes(content)
    again = _draw(folder).checks
    assert again["hashed_bytes"] > 0
    assert _draw(folder).checks["hashed_bytes"] == 0


def test_links_are_refused_in_one_place(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    (folder / WEIGHTS).rename(outside)
    (folder / WEIGHTS).symlink_to(outside)
    with pytest.raises(DamagedBundleError, match="symbolic link; put the file itself there"):
        Bundle(folder)
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    with pytest.raises(DamagedBundleError, match="no regular file"):
        Bundle(folder)


def test_an_unknown_policy(folder: Path) -> None:
    with pytest.raises(UsageError, match="verify='sometimes' is none of always, once, never"):
        Bundle(folder, verify="sometimes")  # type: ignore[arg-type]
