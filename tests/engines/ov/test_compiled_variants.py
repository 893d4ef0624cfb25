"""Which variants of a component OpenVINO compiles, and what of its Python package is imported."""

import gc
import shutil
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.compiled_cache import CompiledCache
from sdengine.engines.engine import Array, run
from sdengine.engines.ov import compiled_variants
from sdengine.engines.registry import open_engine

from ...bundles import bundle_of

pytest.importorskip("openvino")

COMPONENT = "vae_decoder"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle of which nothing is cached yet."""
    monkeypatch.setenv("SDENGINE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(bundle_of("sd1"), tmp_path / "bundle")
    return Bundle(tmp_path / "bundle")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """The lengths that were known at each compilation."""
    known: list[dict[str, int]] = []
    real = compiled_variants.compiled

    def watched(file: str, spec: Any, lengths: Mapping[str, int], options: Mapping[str, Any], **other: Any) -> Any:
        known.append(dict(lengths))
        return real(file, spec, lengths, options, **other)

    monkeypatch.setattr(compiled_variants, "compiled", watched)
    return known


def _decode(engine: Any, **other: int) -> Array:
    axes = {axis: allowed.opt for axis, allowed in engine.spec.axes.items()} | other
    latent = np.random.default_rng(0).standard_normal(engine.spec.input("latent").resolve(axes), np.float32)
    return run(engine, {"latent": latent})["image"]


def test_a_small_network_is_compiled_for_its_own_lengths_and_for_others_when_they_come(
    bundle: Bundle, compiled: list[dict[str, int]]
) -> None:
    engine = open_engine(bundle, COMPONENT, engine="openvino", precision="fp32").engine
    reference = open_engine(bundle, COMPONENT, engine="torch", precision="fp32").engine
    optimised = {axis: allowed.opt for axis, allowed in engine.spec.axes.items()}
    assert compiled == [optimised]
    np.testing.assert_allclose(_decode(engine), _decode(reference), atol=2e-5)
    assert compiled == [optimised]
    for other in ({"h": 7}, {"w": 9, "h": 5}, {}):
        np.testing.assert_allclose(_decode(engine, **other), _decode(reference, **other), atol=2e-5)
    assert compiled == [optimised, {}]


def test_a_large_network_is_compiled_once(
    bundle: Bundle, compiled: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdengine.engines.bundle.compiled_cache.LIMIT", 0)
    engine = open_engine(bundle, COMPONENT, engine="openvino", precision="fp32").engine
    _decode(engine)
    _decode(engine, h=7)
    assert compiled == [{}]


def test_what_runs_keeps_what_its_constants_lie_in(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached variant is computed with in place: it must live as long as what runs it, and no longer."""
    _decode(open_engine(bundle, COMPONENT, engine="openvino", precision="fp32").engine)
    bodies: list[Any] = []
    real = CompiledCache.read

    def watched(self: CompiledCache) -> memoryview | None:
        body = real(self)
        bodies.append(weakref.ref(body))
        return body

    monkeypatch.setattr(CompiledCache, "read", watched)
    engine = open_engine(bundle, COMPONENT, engine="openvino", precision="fp32").engine
    axes = {axis: allowed.opt for axis, allowed in engine.spec.axes.items()}
    buffers = {t.name: np.zeros(t.resolve(axes), t.dtype) for t in (*engine.spec.inputs, *engine.spec.outputs)}
    latent = buffers.pop("latent")
    once = engine.prepare({"latent": latent}, buffers)
    engine.close()
    del engine
    gc.collect()
    assert [reference() is not None for reference in bodies] == [True]
    once()
    del once
    gc.collect()
    assert bodies[0]() is None


def test_the_converter_of_other_formats_is_not_imported() -> None:
    code = (
        "import sys; from sdengine.engines.ov.openvino_library import library; library()\n"
        "assert not {'openvino.tools.ovc', 'openvino_telemetry', 'http.client'} & set(sys.modules)\n"
        "import openvino; assert openvino.convert_model.__name__ == 'convert_model'\n"
        "assert not hasattr(openvino, 'no_such_thing')\n"
        "import openvino.tools.ovc\n"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=120).returncode == 0
