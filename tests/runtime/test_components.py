"""Engines are opened once, or for one use; a component runs in another precision when it is asked to."""

import numpy as np
from sdengine.engines.bundle import Bundle
from sdengine.engines.opening import OpeningOptions
from sdengine.runtime.components import Components

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
        opened.open(["vae_decoder"])
        assert set(opened._open) == (set() if low_memory else {"vae_decoder"})
        with opened.use("vae_encoder") as (engine,):
            assert engine.name == "torch"
        assert set(opened._open) == (set() if low_memory else {"vae_decoder", "vae_encoder"})
        assert opened.ran["vae_encoder"] == "torch"
        opened.close()
        assert not opened._open
