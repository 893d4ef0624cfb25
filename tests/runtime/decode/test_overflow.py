"""A VAE that overflows is run again in float32 if the bundle can; a black picture is never returned."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sdengine.engines.errors import NonFiniteError
from sdengine.engines.memory import HOST, Memory
from sdengine.runtime.decode.overflow import decoded

from ..parity.oracle import ours


class Stub:
    """Components whose VAE overflows in some precisions."""

    def __init__(self, usual: str, overflows: set[str], graphs: set[str]) -> None:
        self.bundle = SimpleNamespace(
            component=lambda name: SimpleNamespace(graphs=graphs), autoencoder=SimpleNamespace(factor=1)
        )
        self.vae_tiling = "off"
        self.ran = {"vae_decoder": "onnxruntime"}
        self.calls: list[str] = []
        self._usual = usual
        self._overflows = overflows

    def run(self, name: str, inputs: Mapping[str, Any], *, precision: str | None = None) -> dict[str, Any]:
        self.calls.append(precision or self._usual)
        # Clamping hides the overflow: only the magnitude tells.
        magnitude = np.array([np.nan if self.calls[-1] in self._overflows else 0.5], np.float32)
        return {"image": np.full((1, 2), 0.5, np.float32), "magnitude": magnitude}

    def use(self, *names: str) -> AbstractContextManager[None]:
        return nullcontext()

    def run_into(self, memory: Memory, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.run(name, inputs)

    def memory_of(self, name: str) -> Memory:
        return HOST

    def precision_of(self, name: str) -> str:
        return self._usual


def run(components: Stub, warnings: list[str]) -> Any:
    return decoded(components, np.zeros((1, 4, 1, 2)), "image", warnings)  # type: ignore[arg-type]


def test_finite_output_is_taken() -> None:
    stub, warnings = Stub("fp16", set(), {"fp16", "fp32"}), []  # type: ignore[var-annotated]
    assert run(stub, warnings).tolist() == [[0.5, 0.5]]
    assert stub.calls == ["fp16"] and not warnings


def test_overflow_is_repeated_in_float32() -> None:
    stub, warnings = Stub("fp16", {"fp16"}, {"fp16", "fp32"}), []  # type: ignore[var-annotated]
    assert run(stub, warnings).tolist() == [[0.5, 0.5]]
    assert stub.calls == ["fp16", "fp32"]
    assert warnings == ["vae_decoder produced NaN or infinity in fp16 and was run again in fp32"]


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        (Stub("fp16", {"fp16"}, {"fp16"}), "in fp16 on onnxruntime; export with --precision fp32"),
        (Stub("fp16", {"fp16", "fp32"}, {"fp16", "fp32"}), "in fp32 on onnxruntime; its input or its weights"),
        (Stub("fp32", {"fp32"}, {"fp32"}), "in fp32 on onnxruntime; its input or its weights"),
    ],
)
def test_no_black_picture(stub: Stub, message: str) -> None:
    with pytest.raises(NonFiniteError, match=message):
        run(stub, [])


def test_the_pipeline_looks_at_latents_and_pixels() -> None:
    pipe = ours("sd1")
    settings: dict[str, Any] = {"num_inference_steps": 1, "height": 48, "width": 48}
    with pytest.raises(NonFiniteError, match="the denoiser produced NaN"):
        pipe("a", **settings, latents=np.full((1, 4, 6, 6), 1e38, np.float32))

    def overflow(_: Any, i: int, t: float, given: dict[str, Any]) -> dict[str, Any]:
        return {"latents": np.full_like(given["latents"], 3e38)}

    with pytest.raises(NonFiniteError, match="vae_decoder produced NaN or infinity in fp32"):
        pipe("a", **settings, callback_on_step_end=overflow)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (r"guidance_scale=3\.4e\+38", {"guidance_scale": 3.4e38}),
        (r"sigmas, which holds 1e\+38", {"sigmas": [1e38, 1.0], "scheduler": "euler"}),
        ("latents, which holds 9.99", {"latents": np.full((1, 4, 6, 6), 1e38, np.float32)}),
    ],
)
def test_numbers_that_are_too_large_are_named_and_not_the_engine(name: str, settings: dict[str, Any]) -> None:
    arguments = {"num_inference_steps": 2, "height": 48, "width": 48, "seed": 1} | settings
    with pytest.raises(NonFiniteError, match=f"produced NaN or infinity.*; choose smaller numbers: {name}"):
        ours("sd1")("a", **arguments)
