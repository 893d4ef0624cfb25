"""Whether images in half precision differ from float32's by rounding alone: ours, and diffusers', after each step."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cases import Case, open_contender
from .contenders import Contender
from .record import Record
from .setting import Setting

__all__ = ["compare_rounding"]

_SEED = 7
_MORE = 2.0
"""Times the error of diffusers' half precision that ours may have."""


def compare_rounding(setting: Setting, record: Record, case: Case, ours: Contender, theirs: Contender) -> None:
    """Compare half precision with float32.

    It draws an image with diffusers in float32, and compares the latents that both leave in half precision with it.

    The first step shows what one evaluation of the UNet differs by. What follows is what the steps make of that: the
    networks' weights are random, and differences grow. All three start from the same noise.

    Args:
        setting: where.
        record: for figures, and the check that our error is no more than twice theirs.
        case: what is drawn.
        ours: sdengine in half precision.
        theirs: diffusers in half precision.

    """
    prompt = "a red fox"
    with record.check(f"{case.kind}: half precision is as near to float32 as diffusers'") as figures:
        exact_pipe = open_contender(setting, case, "diffusers", dtype="float32")
        exact = exact_pipe.latents(prompt, _SEED)
        exact_pipe.close()
        errors = {each.name: _errors(each.latents(prompt, _SEED), exact) for each in (ours, theirs)}
        for name, error in errors.items():
            steps = {f"step {step}": round(error[step - 1], 5) for step in _shown(len(error))}
            record.figure(f"{case.kind}: error of the latents to float32, over their size", contender=name, **steps)
        figures["ours_over_theirs"] = [round(a / max(b, 1e-6), 2) for a, b in zip(*errors.values(), strict=True)]
        assert figures["ours_over_theirs"][0] < _MORE, figures


def _shown(steps: int) -> list[int]:
    return sorted({1, steps} | {step for step in (2, 4, 8, 16) if step < steps})


def _errors(values: NDArray[np.float32], exact: NDArray[np.float32]) -> list[float]:
    """Return, for each step, the root of the mean squared difference over that of the exact values."""
    pairs: list[tuple[Any, Any]] = list(zip(values.astype(np.float64), exact.astype(np.float64), strict=True))
    return [float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))) for a, b in pairs]
