"""What a test of the suite is told about where it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sdengine.runtime import Pipeline

__all__ = ["Setting", "psnr"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A bundle with plans.

    Attributes:
        path: of the bundle.
        engine: that its plans are for.
        precision: of the plans.
        sizes: heights and widths of the plans' profiles.
        requests: how many a long test makes.

    """

    path: Path
    engine: str
    precision: str
    sizes: tuple[tuple[int, int], ...]
    requests: int = 200

    def pipeline(self, **options: Any) -> Pipeline:
        """Open the bundle with the engine under test, on the first GPU."""
        options = {"engine": self.engine, "precision": self.precision, "device": "cuda:0", **options}
        return Pipeline.load(self.path, **options)

    def draw(self, pipe: Pipeline, seed: int, **settings: Any) -> NDArray[np.float32]:
        """Draw one picture of the first size unless another is named: float32 [1, height, width, 3]."""
        height, width = self.sizes[0]
        settings = {"height": height, "width": width, "num_inference_steps": 4, "output_type": "np", **settings}
        images: NDArray[np.float32] = pipe("a red cube", seed=seed, **settings).images
        return images


def psnr(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return decibels between pictures of 0 to 1."""
    error = float(np.mean((found.astype(np.float64) - wanted) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))
