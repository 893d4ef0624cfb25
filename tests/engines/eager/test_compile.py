"""``--compile``: what runs at every step is compiled, and gives what the module gives."""

import shutil

import numpy as np
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.eager import open_torch
from sdengine.engines.engine import run
from sdengine.engines.parity import relative_error, sample

from ...bundles import bundle_of

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")


def test_what_runs_once_for_an_image_is_left_as_it_is() -> None:
    import torch

    bundle = Bundle(bundle_of("sd1", controlnets=1, engines=["torch"]))
    compiled = set()
    for name in bundle.manifest.components:
        engine = open_torch(bundle, name, device="cpu", compile=True)
        if isinstance(engine._module._call, torch._dynamo.eval_frame.OptimizedModule):  # type: ignore[attr-defined]
            compiled.add(name)
    assert compiled == {"denoiser", "controlnet"}


@pytest.mark.slow
def test_a_compiled_step_is_the_modules() -> None:
    bundle = Bundle(bundle_of("sd1", engines=["torch"]))
    plain = open_torch(bundle, "denoiser", device="cpu")
    compiled = open_torch(bundle, "denoiser", device="cpu", compile=True)
    _, inputs = sample(plain.spec, 0)
    error = relative_error(run(compiled, inputs), run(plain, inputs))
    assert np.isfinite(error) and error < 1e-4  # sums in another order
