"""Text, and the conditions beside it: SDXL's sizes, crops and aesthetic scores, LCM's guidance."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.memory import Buffer
from ..denoise.guidance import Guidance
from ..denoise.sample import DENOISER
from ..request.job import Job
from ..request.request import Request
from .condition import Part, Preparation

__all__ = ["TextAndSizes", "conditioned", "row_time_ids", "time_ids"]

F32 = NDArray[np.float32]


class TextAndSizes:
    """Keys and values of the text, and the embeddings of the conditions beside it, of every row."""

    def components(self, job: Job, bundle: Bundle) -> tuple[str, ...]:
        """See :class:`.Condition`."""
        return ()

    def prepare(self, preparation: Preparation) -> list[Part]:
        """See :class:`.Condition`."""
        return [
            Part(inputs={DENOISER: own})
            for images in preparation.chunks()
            for own in conditioned(preparation, "conditioner", images)
        ]


def conditioned(preparation: Preparation, component: str, images: range) -> list[dict[str, Buffer]]:
    """Run a conditioner for some images; return each image's part of its outputs, ``[rows, ...]``.

    Raises:
        UsageError: the text is longer than the bundle takes.

    """
    job, prompts, guidance = preparation.job, preparation.prompts, preparation.guidance
    assert prompts is not None
    spec = preparation.components.spec(component)
    longest = spec.axes["T"].max
    if prompts.hidden.shape[1] > longest:
        raise UsageError(f"the text takes {prompts.hidden.shape[1]} tokens; this bundle takes {longest}")
    of_prompt = [i // job.request.num_images_per_prompt for i in images]

    def by_row(positive: F32 | None, negative: F32 | None) -> F32:
        assert positive is not None
        return guidance.by_row(positive[of_prompt], None if negative is None else negative[of_prompt])

    names = {tensor.name for tensor in spec.inputs}
    inputs = {"hidden": by_row(prompts.hidden, prompts.negative_hidden)}
    if "pooled" in names:
        inputs["pooled"] = by_row(prompts.pooled, prompts.negative_pooled)
    if "time_ids" in names:
        inputs["time_ids"] = _sizes(preparation, images)
    if "guidance" in names:
        inputs["guidance"] = np.full(len(images) * guidance.rows, job.guidance_scale, np.float32)
    return preparation.run(component, inputs, images)


def _sizes(preparation: Preparation, images: range) -> F32:
    job = preparation.job
    index = preparation.components.bundle.manifest.model_index
    aesthetic = bool(index.get("requires_aesthetics_score", False))
    sizes = time_ids(job.request, job.height, job.width, aesthetic=aesthetic, from_image=job.task != "text")
    # With generators it is exactly as in diffusers; with seeds no image depends on the others.
    alternate = job.task == "text" and preparation.streams.kind != "own"
    return row_time_ids(sizes, preparation.guidance, images, job.images, alternate=alternate)


def time_ids(
    request: Request, height: int, width: int, *, aesthetic: bool, from_image: bool
) -> tuple[list[float], list[float]]:
    """Return the positive and the negative size conditions of SDXL (arXiv:2307.01952, section 2.2).

    Args:
        request: has the sizes.
        height: of the image, in pixels.
        width: of the image, in pixels.
        aesthetic: the refiner's conditions, with a score in place of the target size.
        from_image: image-to-image and inpainting fill in the negative conditions from their own arguments;
            text-to-image has them only if both negative sizes are set.

    """
    original = request.original_size or (height, width)
    target = request.target_size or (height, width)
    crops = request.crops_coords_top_left
    negative_original = request.negative_original_size or original
    negative_target = request.negative_target_size or target
    if aesthetic:
        positive = [*original, *crops, request.aesthetic_score]
        negative = [*negative_original, *request.negative_crops_coords_top_left, request.negative_aesthetic_score]
    else:
        positive = [*original, *crops, *target]
        # diffusers' image tasks take the positive crop here (``_get_add_time_ids``), its text-to-image the negative one
        negative_crops = crops if from_image else request.negative_crops_coords_top_left
        negative = [*negative_original, *negative_crops, *negative_target]
    sizes = request.negative_original_size is not None and request.negative_target_size is not None
    if not from_image and not sizes:
        negative = positive
    return [float(n) for n in positive], [float(n) for n in negative]


def row_time_ids(
    sizes: tuple[Sequence[float], Sequence[float]], guidance: Guidance, samples: range, images: int, *, alternate: bool
) -> F32:
    """Return the size conditions of the rows of S samples, [S * rows, n].

    Args:
        sizes: positive and negative.
        guidance: of each sample.
        samples: which of the request's images they are.
        images: how many there are.
        alternate: as diffusers' text-to-image does for several images: it repeats the pair of negative and positive
            over all rows, which are all negative ones and then all positive ones, so that every second row gets the
            other's. One image is the same either way.

    """
    positive, negative = (np.array(s, np.float32) for s in sizes)
    if alternate and guidance.negative_rows:
        rows = [row for i in samples for row in (i, images + i)]
        return np.stack([positive if row % 2 else negative for row in rows])
    return guidance.by_row(np.tile(positive, (len(samples), 1)), np.tile(negative, (len(samples), 1)))
