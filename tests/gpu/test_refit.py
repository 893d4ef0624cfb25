"""Changed weights go in and out of an open plan without a trace."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.engine import Array, run
from sdengine.engines.opening_options import OpeningOptions
from sdengine.engines.parity import sample
from sdengine.engines.registry import open_engine

pytestmark = pytest.mark.gpu

NAME = "conv_out.weight"


def test_a_b_a(engine: str, refittable: Path) -> None:
    bundle = Bundle(refittable)
    opened: Any = open_engine(bundle, "denoiser", engine=engine, options=OpeningOptions(device="cuda:0")).engine
    weights = load_file(bundle.file(bundle.manifest.networks["unet"].weights))
    changed: dict[str, Array] = {NAME: weights[NAME] * np.asarray(2, weights[NAME].dtype)}
    _, inputs = sample(opened.spec, 0)
    first = [run(opened, inputs)["next_state"] for _ in range(3)]  # plain, captured, replayed
    opened.refit(changed)
    other = run(opened, inputs)["next_state"]
    opened.refit({})
    again = [run(opened, inputs)["next_state"] for _ in range(3)]
    opened.close()
    assert not np.array_equal(other, first[0])
    assert all(np.array_equal(state, first[0]) for state in (*first, *again))
