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

__all__ = ["TextAndSizes", "conditioner_of", "row_time_ids", "run_conditioner", "time_ids"]

F32 = NDArray[np.float32]


class TextAndSizes:
    """For every row, the keys and values of the text, and the embeddings of the conditions beside it."""

    def components(self, job: Job, bundle: Bundle) -> tuple[str, ...]:
        """See :class:`.Condition`."""
        return ()

    def prepare(self, preparation: Preparation) -> list[Part]:
        """See :class:`.Condition`."""
        rows, conditioner = preparation.guidance.rows, conditioner_of(DENOISER)
        parts = []
        for images in preparation.chunks():
            inputs = _conditioner_inputs(preparation, conditioner, images)
            for i, outputs in enumerate(preparation.run(conditioner, inputs, images)):
                text = {name: array[i * rows : (i + 1) * rows] for name, array in inputs.items()}
                parts.append(Part(inputs={DENOISER: outputs}, text=text))
        return parts


def conditioner_of(component: str) -> str:
    """Return the conditioner of a denoiser or a ControlNet, which computes their inputs that follow from the text."""
    return "conditioner" if component == DENOISER else f"{component}_conditioner"


def run_conditioner(preparation: Preparation, component: str, images: range) -> list[dict[str, Buffer]]:
    """Run a conditioner for some images; return each image's part of its outputs, ``[rows, ...]``.

    Raises:
        UsageError: the text is longer than the bundle takes.

    """
    return preparation.run(component, _conditioner_inputs(preparation, component, images), images)


def _conditioner_inputs(preparation: Preparation, component: str, images: range) -> dict[str, F32]:
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
    return inputs


def _sizes(preparation: Preparation, images: range) -> F32:
    job = preparation.job
    index = preparation.components.bundle.manifest.model_index
    aesthetic = bool(index.get("requires_aesthetics_score", False))
    sizes = time_ids(job.request, job.height, job.width, aesthetic=aesthetic, from_image=job.task != "text")
    # With generators, images are exactly diffusers'; with seeds, no image depends on the others.
    alternate = job.task == "text" and preparation.streams.kind != "seeds"
    return row_time_ids(sizes, preparation.guidance, images, job.images, alternate=alternate)


def time_ids(
    request: Request, height: int, width: int, *, aesthetic: bool, from_image: bool
) -> tuple[list[float], list[float]]:
    """Return SDXL's size conditions of the prompt and of the negative prompt (arXiv:2307.01952, section 2.2).

    Args:
        request: has the arguments such as ``original_size``.
        height: of the image, in pixels.
        width: of the image, in pixels.
        aesthetic: return the refiner's conditions, which have an aesthetic score in place of the target size.
        from_image: whether the task is image-to-image or inpainting, where each negative argument counts by itself;
            in text-to-image they count only if both negative sizes are set.

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
    """Return the size conditions of the rows of S samples, float32 [S * rows, n].

    Args:
        sizes: those of the prompt and of the negative prompt.
        guidance: of each sample.
        samples: the indices of the S samples among the request's images.
        images: how many images the request has.
        alternate: give several images the conditions that diffusers' text-to-image gives them. Its rows are all
            negative prompts, then all prompts, but it repeats the pair (negative, positive) of conditions over them,
            so that every second row gets the conditions of the other kind. For one image there is no difference.

    """
    positive, negative = (np.array(s, np.float32) for s in sizes)
    if alternate and guidance.negative_rows:
        rows = [row for i in samples for row in (i, images + i)]
        return np.stack([positive if row % 2 else negative for row in rows])
    return guidance.by_row(np.tile(positive, (len(samples), 1)), np.tile(negative, (len(samples), 1)))
