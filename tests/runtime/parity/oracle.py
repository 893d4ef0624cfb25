"""The same arguments given to diffusers' pipeline and to ours, and how far apart the pictures are.

diffusers has a class for each family and task; ours has one, which follows from the arguments. Only one name differs:
what diffusers' text-to-image with ControlNet calls ``image`` is ``control_image`` here.
"""

import contextlib
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import ControlNetModel, DiffusionPipeline
from numpy.typing import NDArray
from sdengine.runtime import Pipeline, Result

from ...bundles import bundle_of, checkpoint_of, controlnets_of

__all__ = ["DECIBELS", "agree", "both", "generators", "oracle", "ours", "picture", "psnr", "their_warnings"]

DECIBELS = 80.0
"""What float32 pictures must agree to; rounding alone leaves 110 and more, so that less is a bug."""

_CLASSES = {
    ("sd", "text", False): "StableDiffusionPipeline",
    ("sd", "image", False): "StableDiffusionImg2ImgPipeline",
    ("sd", "inpaint", False): "StableDiffusionInpaintPipeline",
    ("sd", "text", True): "StableDiffusionControlNetPipeline",
    ("sd", "image", True): "StableDiffusionControlNetImg2ImgPipeline",
    ("sd", "inpaint", True): "StableDiffusionControlNetInpaintPipeline",
    ("sdxl", "text", False): "StableDiffusionXLPipeline",
    ("sdxl", "image", False): "StableDiffusionXLImg2ImgPipeline",
    ("sdxl", "inpaint", False): "StableDiffusionXLInpaintPipeline",
    ("sdxl", "text", True): "StableDiffusionXLControlNetPipeline",
    ("sdxl", "image", True): "StableDiffusionXLControlNetImg2ImgPipeline",
    ("sdxl", "inpaint", True): "StableDiffusionXLControlNetInpaintPipeline",
    ("lcm", "text", False): "LatentConsistencyModelPipeline",
    ("lcm", "image", False): "LatentConsistencyModelImg2ImgPipeline",
    ("lcm", "inpaint", False): "StableDiffusionInpaintPipeline",
}


def generators(*seeds: int) -> list[torch.Generator]:
    """Return a fresh generator for each seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def picture(height: int, width: int, seed: int = 0, *, hole: bool = False) -> Any:
    """Return a smooth random RGB picture, or a mask with a hole, as PIL."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    if hole:
        coarse = np.zeros((5, 6), np.uint8)
        coarse[1:4, 2 + seed % 2 : 5] = 255
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@functools.cache
def _family(kind: str) -> str:
    return "lcm" if kind == "lcm" else "sdxl" if kind.startswith("sdxl") else "sd"


@functools.cache
def _networks(kind: str) -> dict[str, Any]:
    with their_warnings():
        pipeline = DiffusionPipeline.from_pretrained(checkpoint_of(kind))
    return {name: part for name, part in pipeline.components.items() if name != "scheduler"}


def oracle(kind: str, task: str, controlnets: int = 0) -> Any:
    """Return a fresh diffusers pipeline over shared networks."""
    cls = getattr(diffusers, _CLASSES[_family(kind), task, controlnets > 0])
    parts = dict(_networks(kind))
    if controlnets:
        nets = [_controlnet(str(path)) for path in controlnets_of(kind, controlnets)]
        parts["controlnet"] = nets[0] if controlnets == 1 else nets
        parts.pop("image_encoder", None)
    with their_warnings():
        pipeline = cls.from_pretrained(checkpoint_of(kind), **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextlib.contextmanager
def their_warnings() -> Iterator[None]:
    """diffusers warns of its own use of numpy and of its deprecations; that is no concern of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def _controlnet(path: str) -> ControlNetModel:
    return ControlNetModel.from_pretrained(path)


@functools.cache
def ours(kind: str, controlnets: int = 0, engine: str = "onnxruntime", precision: str | None = None) -> Pipeline:
    """Return our pipeline, open for the whole session."""
    bundle = bundle_of(kind, controlnets=controlnets)
    return Pipeline.load(bundle, engine=engine, precision=precision, threads=1)


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio in decibels of pictures with values 0 to 1."""
    assert a.shape == b.shape
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else -10 * np.log10(error)


def both(
    kind: str,
    *,
    controlnets: int = 0,
    engine: str = "onnxruntime",
    precision: str | None = None,
    seeds: Sequence[int] | int = (5,),
    by_seed: bool = False,
    scheduler: str | None = None,
    scheduler_config: Mapping[str, object] | None = None,
    **arguments: Any,
) -> tuple[NDArray[np.float32], Result]:
    """Draw with diffusers and with ours.

    Args:
        kind: of checkpoint.
        controlnets: how many the bundle holds.
        engine: ours.
        precision: ours.
        seeds: of a list of generators, or, if an int, of one generator.
        by_seed: give ours seeds in place of generators.
        scheduler: class name, in place of the checkpoint's.
        scheduler_config: options of the scheduler.
        arguments: of the call, by our names.

    Returns:
        diffusers' pictures, float32 [N, H, W, 3], and our result.
    """
    task = "inpaint" if "mask_image" in arguments else "image" if "image" in arguments else "text"
    reference = oracle(kind, task, controlnets)
    if scheduler is not None or scheduler_config is not None:
        cls = type(reference.scheduler) if scheduler is None else getattr(diffusers, scheduler)
        with their_warnings():
            reference.scheduler = cls.from_config(reference.scheduler.config, **(scheduler_config or {}))
    theirs = dict(arguments)
    if task == "text" and controlnets:
        theirs["image"] = theirs.pop("control_image")

    def streams() -> Any:
        return torch.Generator().manual_seed(seeds) if isinstance(seeds, int) else generators(*seeds)

    settings = {"output_type": "np"}
    with their_warnings():
        expected = reference(**(settings | theirs), generator=streams()).images
    noise = {"seed": list(seeds)} if by_seed and not isinstance(seeds, int) else {"generator": streams()}
    result = ours(kind, controlnets, engine, precision)(
        **(settings | arguments), **noise, scheduler=scheduler, scheduler_config=scheduler_config
    )
    return _array(expected), result


def _array(images: Any) -> NDArray[np.float32]:
    """Pictures as [N, H, W, 3], 0 to 1; latents as they are."""
    if isinstance(images, list):
        return np.stack([np.asarray(image, np.float32) / 255 for image in images])
    return np.asarray(images, np.float32)


def agree(
    kind: str,
    *,
    decibels: float = DECIBELS,
    **arguments: Any,
) -> Result:
    """Check that both draw the same; return our result."""
    expected, result = both(kind, **arguments)
    found = _array(result.images)
    if arguments.get("output_type") == "latent":
        scale = float(np.abs(expected).max())
        expected, found = expected / scale, found / scale
    else:
        clipped = float(np.mean((expected <= 0) | (expected >= 1)))
        assert expected.std() > 0.05 and clipped < 0.6, f"the reference says little: {clipped:.0%} is clipped"
    for i in range(len(expected)):
        for j in range(i):
            assert psnr(expected[i], expected[j]) < 60, "two images are alike: this case cannot tell them apart"
    decided = psnr(expected, found)
    assert decided >= decibels, f"{decided:.1f} dB"
    return result
