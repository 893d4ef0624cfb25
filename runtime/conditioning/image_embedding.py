"""The embedding of an image: keys and values of its tokens, and what is added to the embedding of the timestep."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ...engines.bundle.bundle import Bundle
from ...engines.memory import Buffer
from ..denoise.sample import DENOISER
from ..prior import ImageEmbeds
from ..request.job import Job
from .condition import Part, Preparation

__all__ = ["ImageEmbedding"]

F32 = NDArray[np.float32]
_COMPONENT = "conditioner"


class ImageEmbedding:
    """The embedding of each row.

    A prior may still have to denoise it: the inputs are zeros until the sample begins.
    """

    def components(self, job: Job, bundle: Bundle) -> tuple[str, ...]:
        """See :class:`.Condition`."""
        return ()

    def prepare(self, preparation: Preparation) -> list[Part]:
        """See :class:`.Condition`."""
        rows, parts = preparation.guidance.rows, []
        for embeds in preparation.embeds:
            inputs: dict[str, Buffer] = {
                tensor.name: preparation.memory.zeros(tensor.resolve({"R": rows}), tensor.dtype)
                for tensor in preparation.components.spec(_COMPONENT).outputs
            }
            begin = _filling(preparation, embeds, inputs)
            parts.append(Part(inputs={DENOISER: inputs}, before=embeds.before, begin=begin))
        return parts


def _filling(
    preparation: Preparation, embeds: ImageEmbeds, inputs: Mapping[str, Buffer]
) -> Callable[[], Mapping[str, F32]]:
    """Return a function that computes a sample's inputs from its embeddings, and returns the embeddings by name."""

    def fill() -> Mapping[str, F32]:
        positive = embeds.positive.value()
        values = {"image_embeds": positive}
        if embeds.negative is not None:
            values["negative_image_embeds"] = embeds.negative.value()
        negative = values.get("negative_image_embeds")
        rows = preparation.guidance.by_row(positive[None], None if negative is None else negative[None])
        memory = preparation.memory
        for name, output in preparation.components.run_into(memory, _COMPONENT, {"image_embeds": rows}).items():
            memory.copy(inputs[name], output)
        return values

    return fill
