"""bfloat16 without a library that knows it: torch's numbers, to the bit."""

import numpy as np
import torch
from sdengine.engines.files.floats import float32_from, stored_from


def test_bfloat16_as_torch() -> None:
    values = np.random.default_rng(0).normal(size=(3, 70_001)).astype(np.float32)  # more than are rounded together
    values[0, :6] = [np.inf, -np.inf, 0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8]  # the last two lie between two bfloat16
    bits, theirs = stored_from(values, "BF16"), torch.from_numpy(values).to(torch.bfloat16)
    assert np.array_equal(bits, theirs.view(torch.uint16).numpy())
    assert np.array_equal(float32_from("BF16", bits), theirs.float().numpy())
    assert stored_from(np.float32(1.5).reshape(()), "BF16").shape == ()
