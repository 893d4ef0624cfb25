"""What the conditioner is given besides text: SDXL's sizes, crops and aesthetic scores, LCM's guidance."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..engines.engine import Array
from ..engines.errors import UsageError
from ..engines.spec import ComponentSpec
from .guidance import Guidance
from .prompt import EncodedPrompts
from .request import Request

__all__ = ["conditioner_inputs", "row_time_ids", "time_ids"]

F32 = NDArray[np.float32]


def time_ids(
    request: Request, height: int, width: int, *, aesthetic: bool, from_image: bool
) -> tuple[list[float], list[float]]:
    """Return the positive and the negative size conditions of SDXL (arXiv:2307.01952, section 2.2).

    Args:
        request: the sizes asked for.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        aesthetic: the refiner's form, with a score in place of the target size.
        from_image: image-to-image and inpainting fill in the negative form from their own arguments; text-to-image
            has one only if both negative sizes are given.

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
    given = request.negative_original_size is not None and request.negative_target_size is not None
    if not from_image and not given:
        negative = positive
    return [float(n) for n in positive], [float(n) for n in negative]


def row_time_ids(
    sizes: tuple[Sequence[float], Sequence[float]], guidance: Guidance, samples: range, images: int, *, alternate: bool
) -> F32:
    """Return the size conditions of the rows, [R, n].

    Args:
        sizes: positive and negative.
        guidance: the rows.
        samples: which of the request's images they are.
        images: how many there are.
        alternate: as diffusers' text-to-image does for several images: it repeats the pair of negative and positive
            over all rows, so that every second row gets the other's. One image gets what is meant either way.

    """
    positive, negative = (np.array(s, np.float32) for s in sizes)
    if alternate and guidance.negative_rows:
        rows = [*samples, *(images + i for i in samples)]
        return np.stack([positive if row % 2 else negative for row in rows])
    return guidance.stack(np.tile(positive, (len(samples), 1)), np.tile(negative, (len(samples), 1)))


def conditioner_inputs(
    spec: ComponentSpec,
    prompts: EncodedPrompts,
    samples: Sequence[int],
    guidance: Guidance,
    sizes: F32,
    guidance_scale: float,
) -> dict[str, Array]:
    """Gather the conditioner's inputs by rows.

    Args:
        spec: the conditioner's.
        prompts: embeddings of B prompts.
        samples: prompt of each sample, [S].
        guidance: the rows.
        sizes: size conditions of the rows, [R, n].
        guidance_scale: what a distilled model is told.

    Raises:
        UsageError: the text is longer than the bundle takes.

    """
    chosen = list(samples)

    def by_rows(positive: F32 | None, negative: F32 | None) -> F32:
        assert positive is not None
        return guidance.stack(positive[chosen], None if negative is None else negative[chosen])

    longest = spec.axes["T"].max
    if prompts.hidden.shape[1] > longest:
        raise UsageError(f"the text takes {prompts.hidden.shape[1]} tokens; this bundle takes {longest}")
    available: Mapping[str, F32] = {"hidden": by_rows(prompts.hidden, prompts.negative_hidden)}
    names = {tensor.name for tensor in spec.inputs}
    inputs: dict[str, Array] = dict(available)
    if "pooled" in names:
        inputs["pooled"] = by_rows(prompts.pooled, prompts.negative_pooled)
    if "time_ids" in names:
        inputs["time_ids"] = sizes
    if "guidance" in names:
        inputs["guidance"] = np.full(guidance.rows, guidance_scale, np.float32)
    return {name: np.ascontiguousarray(array) for name, array in inputs.items()}
