"""Engines are opened once, or for one use; a component runs in another precision when it is asked to."""

import threading
from typing import Any

import numpy as np
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import EngineError, UsageError
from sdengine.engines.opening_options import OpeningOptions
from sdengine.runtime import open_engines as module
from sdengine.runtime.open_engines import Components

from ..bundles import bundle_of


def components(*, low_memory: bool = False) -> Components:
    return Components(
        Bundle(bundle_of("sd1")),
        engine="torch",
        precision="fp32",
        fallback=None,
        low_memory=low_memory,
        options=OpeningOptions(threads=1),
    )


def test_another_precision_for_one_run() -> None:
    opened = components()
    latent = {"latent": np.random.default_rng(0).standard_normal((1, 4, 6, 5), np.float32)}
    assert opened.precision_of("vae_decoder") is None
    usual = opened.run("vae_decoder", latent)["image"]
    rough = opened.run("vae_decoder", latent, precision="bf16")["image"]
    assert opened.precision_of("vae_decoder") == "fp32"
    assert 1e-4 < np.abs(np.asarray(usual, np.float32) - np.asarray(rough, np.float32)).max() < 0.1
    assert np.array_equal(usual, opened.run("vae_decoder", latent)["image"])
    opened.close()


def test_low_memory_closes_after_each_use() -> None:
    for low_memory in (False, True):
        opened = components(low_memory=low_memory)
        with opened.opening(["vae_decoder"]):
            pass
        assert set(opened._open) == (set() if low_memory else {"vae_decoder"})
        with opened.use("vae_encoder") as (engine,):
            assert engine.name == "torch"
        assert set(opened._open) == (set() if low_memory else {"vae_decoder", "vae_encoder"})
        assert opened.ran["vae_encoder"] == "torch"
        opened.close()
        assert not opened._open


def test_low_memory_tells_what_closed_engines_noted_once() -> None:
    opened = Components(
        Bundle(bundle_of("sd1")),
        engine="torch",
        precision="fp32",
        fallback=None,
        low_memory=True,
        options=OpeningOptions(cuda_graph="step", device="cpu"),
    )
    for _ in range(2):
        with opened.use("vae_encoder"):
            pass
    assert opened.notes == ["vae_encoder: cuda_graph is of no use on a CPU"]


@pytest.mark.parametrize(
    "options", [{"cuda_graph": "always"}, {"compile": "no"}, {"memory_limit": 0}, {"memory_limit": "1GB"}]
)
def test_values_are_checked_even_where_they_are_of_no_use(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        OpeningOptions(**options)


def test_components_are_opened_at_once_and_a_failure_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_sdxl() -> Components:
        return Components(
            Bundle(bundle_of("sdxl")), engine="onnxruntime", precision=None, fallback=None, low_memory=False
        )

    names = ["text_encoder", "text_encoder_2", "conditioner", "vae_decoder"]
    together, opened, real = threading.Barrier(2, timeout=60), [], module.open_engine

    def watched(bundle: Bundle, name: str, **options: Any) -> Any:
        together.wait()  # passed only by two at once
        if name == "conditioner" and failing:
            raise EngineError("no")
        opened.append(real(bundle, name, **options))
        return opened[-1]

    monkeypatch.setattr(module, "open_engine", watched)
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    failing = False
    first = of_sdxl()
    with first.opening(names):
        assert not first.ran, "the body runs meanwhile"
    assert list(first.ran) == names, "in order, whoever was first"
    first.close()
    failing = True
    second = of_sdxl()
    opened.clear()
    with pytest.raises(EngineError, match="no"), second.opening(names):
        pass
    second.close()
    for found in opened:
        with pytest.raises(EngineError, match="has been closed"):
            found.engine.prepare({}, {})


def test_what_fails_while_components_open_leaves_them_to_be_closed() -> None:
    components = Components(
        Bundle(bundle_of("sdxl")), engine="onnxruntime", precision=None, fallback=None, low_memory=False
    )
    with pytest.raises(UsageError, match="not this"), components.opening(["vae_decoder"]):
        raise UsageError("not this")
    with components.use("vae_decoder") as (engine,):
        components.close()
    with pytest.raises(EngineError, match="has been closed"):
        engine.prepare({}, {})
