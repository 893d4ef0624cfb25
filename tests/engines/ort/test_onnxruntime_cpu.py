"""Which graph ONNX Runtime opens on a CPU, and how."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.engine import run
from sdengine.engines.parity import relative_error, sample
from sdengine.engines.registry import open_engine

from ...bundles import bundle_of, with_one_size


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDENGINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the graphs that are opened, and ``cached`` for a cached one."""
    real, files = onnxruntime.InferenceSession, []

    def session(source: Any, *args: Any, **options: Any) -> Any:
        files.append(Path(source).name if isinstance(source, str) else "cached")
        return real(source, *args, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return files


def _copy(target: Path) -> Path:
    return Path(shutil.copytree(bundle_of("sd1"), target))


def _without_contrib(folder: Path) -> None:
    """Make the bundle one from before graphs had a second variant."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["checksum"]
    for component in manifest["components"].values():
        file = component["graphs"]["fp32"].pop("contrib")
        del manifest["files"][file]
        (folder / file).unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("component", ["denoiser", "text_encoder", "vae_decoder"])
def test_a_bundle_without_second_graphs_computes_the_same(tmp_path: Path, component: str, opened: list[str]) -> None:
    folder = _copy(tmp_path / "bundle")
    bundle = Bundle(folder)
    _, inputs = sample(bundle.graph(component, "fp32").spec, 1)
    expected = run(open_engine(bundle, component, engine="onnxruntime").engine, inputs)
    _without_contrib(folder)
    engine = open_engine(Bundle(folder), component, engine="onnxruntime").engine
    assert engine.notes == []
    assert relative_error(run(engine, inputs), expected) < 1e-5
    assert opened == [f"{component}.fp32.contrib.onnx", f"{component}.fp32.onnx"]


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_a_bundle_of_one_size_agrees_with_torch(kind: str, size: tuple[int, int]) -> None:
    """Also at a size at which levels do not double, and with as many rows and tokens as are wanted."""
    bundle = Bundle(bundle_of(kind))
    with_one_size(bundle, "denoiser", S=2, h=size[0], w=size[1])
    with_one_size(bundle, "vae_decoder", h=size[0], w=size[1])
    for component in ("denoiser", "vae_decoder"):
        torch = open_engine(bundle, component, engine="torch", precision="fp32").engine
        engine = open_engine(bundle, component, engine="onnxruntime", precision="fp32").engine
        for case in (0, 1):
            spec = bundle.graph(component, "fp32").spec
            _, inputs = sample(spec, case)
            assert relative_error(run(engine, inputs), run(torch, inputs)) < 1e-4


def test_static_shapes_are_part_of_the_cache_key(tmp_path: Path, opened: list[str]) -> None:
    """A graph optimised for one size is not opened for another."""
    folder = _copy(tmp_path / "bundle")
    for height in (8, 9, 8):
        bundle = Bundle(folder)
        with_one_size(bundle, "vae_decoder", h=height, w=8)
        engine = open_engine(bundle, "vae_decoder", engine="onnxruntime").engine
        latent = np.ones((1, 4, height, 8), np.float32)
        assert run(engine, {"latent": latent})["image"].shape[1] % height == 0
    assert opened == [*["vae_decoder.fp32.contrib.onnx"] * 2, "cached"]


def test_the_library_sends_no_usage_data(tmp_path: Path) -> None:
    """It would begin with a file in the temporary folder."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = "import sys; from sdengine.runtime import Pipeline; Pipeline.load(sys.argv[1], engine='onnxruntime').close()"
    hidden = ("ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", code, str(bundle_of("sd1"))], env=environment, timeout=200, check=True)
    assert not list(temporary.iterdir())
