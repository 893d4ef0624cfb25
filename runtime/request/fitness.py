"""Whether a request suits the bundle and its own task; what of it has no effect."""

from collections.abc import Mapping

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.families import FAMILIES
from ...engines.nets.config import UNetConfig
from .request import Request

__all__ = ["check_task", "inner_share", "without_effect"]

_ONLY_IMAGE = ("strength", "masked_image_latents", "padding_mask_crop", "denoising_start")
_ONLY_MASK = ("masked_image_latents", "padding_mask_crop")
_ONLY_CONTROL = (
    "guess_mode",
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
)
_UNSET = Request()


def _given(request: Request, name: str) -> bool:
    value, unset = getattr(request, name), getattr(_UNSET, name)
    if unset is None:
        return value is not None
    return bool(tuple(value) != unset if isinstance(unset, tuple) else value != unset)


def inner_share(share: float | None) -> float | None:
    """Return a share of the schedule, or None where diffusers takes it for none: at 0 and at 1."""
    return share if share is not None and 0 < share < 1 else None


def check_task(request: Request, task: str, unet: UNetConfig, bundle: Bundle) -> None:
    """Check a request against its task and the bundle.

    Raises:
        UsageError: they do not fit; the message says what would.

    """
    family = bundle.family
    inpaint_unet = unet.in_channels > unet.out_channels
    refiner = bool(bundle.manifest.model_index.get("requires_aesthetics_score"))
    if inpaint_unet and task != "inpaint":
        raise UsageError("this is an inpainting checkpoint: give image and mask_image")
    if task == "text" and refiner:
        raise UsageError("this is a refiner: it needs image, a picture or the latents of a base model")
    for needed, names, met in (
        ("image", _ONLY_IMAGE, task != "text"),
        ("mask_image", _ONLY_MASK, task == "inpaint"),
        ("control_image", _ONLY_CONTROL, request.control_image is not None),
    ):
        for name in names if not met else ():
            if _given(request, name):
                raise UsageError(f"{name} needs {needed}")
    others = {
        n: other.label for other in FAMILIES.values() for n in other.own_arguments if n not in family.own_arguments
    }
    for name, label in others.items():
        if _given(request, name):
            raise UsageError(f"{name} is {label}'s; this bundle is of the family {family.name}")
    start, end = inner_share(request.denoising_start), inner_share(request.denoising_end)
    if start is not None and end is not None and start >= end:
        raise UsageError(f"denoising_start={start} must be below denoising_end={end}")
    if request.denoising_start is not None and task == "inpaint" and request.latents is not None:
        raise UsageError("latents and denoising_start were both given: the latents handed over are given as image")
    if request.control_image is not None and not bundle.manifest.controlnets:
        raise UsageError("this bundle holds no ControlNet; export it with --controlnet PATH")


def without_effect(request: Request, task: str, model_index: Mapping[str, object], *, guided: bool) -> list[str]:
    """Return a warning for each argument that was given and changes nothing, as in diffusers."""
    found = []

    def warn(name: str, reason: str) -> None:
        if _given(request, name):
            found.append(f"{name} has no effect {reason}")

    aesthetic = bool(model_index.get("requires_aesthetics_score"))
    if not guided:
        warn("guidance_rescale", "without guidance (guidance_scale above 1)")
    if inner_share(request.denoising_start) is not None:
        warn("strength", "beside denoising_start")
    elif request.denoising_start is not None:
        found.append(
            f"denoising_start={request.denoising_start} does not say where to begin, as in diffusers: strength does, "
            "and the image is taken without noise"
        )
    if request.denoising_end == 0:
        found.append("denoising_end=0.0 has no effect, as in diffusers: denoising goes to the end")
    given = request.sigmas if request.timesteps is None else request.timesteps
    if given is not None:
        warn("num_inference_steps", "beside timesteps or sigmas")
    if not aesthetic:
        for name in ("aesthetic_score", "negative_aesthetic_score"):
            warn(name, "on a checkpoint that was trained without: refiners have it")
    else:
        for name in ("target_size", "negative_target_size"):
            warn(name, "on a refiner: the aesthetic score stands in its place")
    if task == "text" and (request.negative_original_size is None or request.negative_target_size is None):
        for name in ("negative_original_size", "negative_target_size", "negative_crops_coords_top_left"):
            warn(name, "unless negative_original_size and negative_target_size are both given")
    if task != "text" and not aesthetic:
        warn("negative_crops_coords_top_left", "here: crops_coords_top_left holds for the negative prompt too")
    return found
