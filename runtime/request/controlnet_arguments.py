"""The arguments for ControlNets: their images, their scales, and the steps at which they run."""

from collections.abc import Sequence

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.families import Defaults
from .input_images import InputImage, load_images
from .request import Request

__all__ = ["controlnet_images", "controlnet_scales", "controlnet_windows"]


def controlnet_images(
    request: Request, bundle: Bundle, prompts: int, total: int, notes: list[str]
) -> list[list[InputImage]]:
    """Return for each ControlNet its images: one, one for each prompt, or one for each generated image.

    Args:
        request: the request.
        bundle: the bundle, which says how many ControlNets there are.
        prompts: the number of prompts.
        total: the number of generated images.
        notes: what the user should know about how the images were read is added to it.

    Raises:
        UsageError: they are more or fewer, or cannot be read.

    """
    if request.control_image is None:
        return []
    count = len(bundle.manifest.controlnets)
    value = request.control_image
    per_net = list(value) if isinstance(value, (list, tuple)) and count > 1 else [value]
    if per_net and all(isinstance(entry, (list, tuple)) for entry in per_net) and count > 1:
        counts = {len(of_prompt) for of_prompt in per_net}
        if counts != {count}:
            raise UsageError(
                f"control_image: a list in a list holds the images of one prompt, one for each of the {count} "
                f"ControlNets, not {sorted(counts)}"
            )
        per_net = [list(net) for net in zip(*per_net, strict=True)]
    if len(per_net) != count:
        raise UsageError(
            f"control_image: {len(per_net)} given, this bundle holds {count} ControlNets; give one for each"
        )
    loaded = [load_images(of_net, "control_image", notes, signed=True) for of_net in per_net]
    for images in loaded:
        if len(images) not in (1, prompts, total):
            raise UsageError(
                f"control_image: {len(images)} images for {prompts} prompts: give one, or one for each prompt"
            )
    return loaded


def controlnet_scales(request: Request, defaults: Defaults, count: int) -> tuple[float, ...]:
    """Return the scale of each ControlNet.

    Raises:
        UsageError: there are more or fewer scales than ControlNets.

    """
    scale = request.controlnet_conditioning_scale
    return _per_net(
        "controlnet_conditioning_scale", defaults.controlnet_conditioning_scale if scale is None else scale, count
    )


def controlnet_windows(request: Request, count: int) -> tuple[tuple[float, float], ...]:
    """Return the share of the steps at which each ControlNet begins and ends.

    Raises:
        UsageError: there are more or fewer shares than ControlNets, or one ends before it begins.

    """
    starts = _per_net("control_guidance_start", request.control_guidance_start, count)
    ends = _per_net("control_guidance_end", request.control_guidance_end, count)
    for start, end in zip(starts, ends, strict=True):
        if not 0 <= start < end <= 1:
            raise UsageError(
                f"control_guidance_start={start} and control_guidance_end={end}: need 0 <= start < end <= 1"
            )
    return tuple(zip(starts, ends, strict=True))


def _per_net(name: str, value: float | Sequence[float], count: int) -> tuple[float, ...]:
    if isinstance(value, (int, float)):
        return (value,) * count
    if count and len(value) != count:
        raise UsageError(f"{name}: {len(value)} given for {count} ControlNets; give one, or one for each")
    return tuple(value)
