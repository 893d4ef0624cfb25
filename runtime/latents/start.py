"""Where denoising starts: noise, a noised image, or another model's latents.

Noise is taken from each stream in the order of diffusers' pipelines: for encoding the image, the initial noise, for
encoding the masked image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engines.engine import Array
from ...engines.errors import UsageError
from ...engines.nets.config import UNetConfig
from ..decode.overflow import encoded
from ..open_engines import Components
from ..request.input_images import array_from
from ..request.job import Job
from .seeds import NoiseStreams

__all__ = ["Start", "start_for"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Start:
    """What denoising starts from, for S samples.

    Attributes:
        latent: float32 [S, C, h, w].
        extra: float32 [S, C + 1, h, w], mask and masked image, in the order in which an inpainting UNet sees them
            beside the latent.
        mask: float32 [S, 1, h, w], for an ordinary UNet's inpainting: 1 is repainted.
        known: float32 [S, 2, C, h, w], latents of the image, for outside the mask, and the initial noise.

    """

    latent: F32
    extra: F32 | None = None
    mask: F32 | None = None
    known: F32 | None = None

    @property
    def inputs(self) -> dict[str, Array]:
        """The denoiser's inputs that come from here, beside the latent."""
        arrays = {"extra": self.extra, "mask": self.mask, "known": self.known}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}


def start_for(
    job: Job,
    unet: UNetConfig,
    components: Components,
    noise: NoiseStreams,
    *,
    levels: tuple[float, float],
    from_noise: float,
    warnings: list[str],
) -> Start:
    """Make the start of all images of a job.

    Args:
        job: the job.
        unet: configuration of its network.
        components: the engines; they encode images.
        noise: the images' streams.
        levels: factors of the image and of the noise where the schedule starts.
        from_noise: factor of the noise where the schedule would start without an image.
        warnings: where to add what the user should know.

    Raises:
        UsageError: latents do not fit the job.
        NonFiniteError: the VAE produced NaN or infinity.

    """
    shape = (unet.latent, job.height // job.factor, job.width // job.factor)
    noise_given = job.request.latents if not job.stages or np.ndim(job.request.latents) != 2 else None
    latents = _checked(noise_given, "latents", (job.images,), shape)
    encoding = _Encoding(
        components=components,
        noise=noise,
        shape=shape,
        in_rows=job.request.image_embeds is not None,
        warnings=warnings,
    )
    if job.task == "inpaint" and unet.inpaints and unet.blends:
        return _inpaint_seen_and_put_back(job, encoding, latents, from_noise)
    if job.task == "inpaint":
        return _inpaint(job, unet, encoding, latents, levels, from_noise)
    if job.task == "text":
        return Start(latent=np.float32(from_noise) * (encoding.fresh() if latents is None else latents))
    if latents is not None:
        return Start(latent=latents)
    image = _image_latents(job, encoding)
    if job.request.denoising_start is not None:
        return Start(latent=image)
    return Start(latent=_noised(image, encoding.fresh(), levels))


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """Encodes images to latents of ``shape``.

    Attributes:
        in_rows: which of several images a sample starts from. With ``num_images_per_prompt``, diffusers' pipelines
            go through them again and again, but those that take embeddings of images repeat each in a row.

    """

    components: Components
    noise: NoiseStreams
    shape: tuple[int, ...]
    in_rows: bool
    warnings: list[str]

    def fresh(self) -> F32:
        return self.noise.normal(self.shape)

    def encode(self, pixels: F32, *, repeated: bool) -> F32:
        """Encode images [N, H, W, 3], and repeat them to [S, C, h, w]."""
        random = any(tensor.name == "noise" for tensor in self.components.spec("vae_encoder").inputs)
        noise = self.noise.normal_for_images(self.shape, len(pixels), repeated=repeated) if random else pixels
        latents = []
        for i in range(len(noise)):
            inputs = {"image": np.ascontiguousarray(pixels[i % len(pixels)][None])}
            if random:
                inputs["noise"] = noise[i : i + 1]
            latents.append(encoded(self.components, inputs, self.warnings))
        return self.repeated(np.concatenate(latents))

    def repeated(self, array: F32, count: int | None = None) -> F32:
        """Repeat [N, ...] to [count, ...], or to one for each sample."""
        indices = np.arange(len(self.noise.seeds) if count is None else count)
        return array[indices // (len(indices) // len(array)) if self.in_rows else indices % len(array)]


def _inpaint(
    job: Job,
    unet: UNetConfig,
    encoding: _Encoding,
    latents: F32 | None,
    levels: tuple[float, float],
    from_noise: float,
) -> Start:
    inpaint_unet = unet.inpaints
    handed_over = job.request.denoising_start is not None
    from_image = handed_over or (latents is None and job.strength is not None)
    image = _image_latents(job, encoding) if from_image or not inpaint_unet else None
    fresh = encoding.fresh() if latents is None else latents
    if handed_over:
        assert image is not None
        latent = image.copy()
    elif from_image:
        assert image is not None
        latent = _noised(image, fresh, levels)
    else:
        latent = np.float32(from_noise) * fresh
    assert job.mask is not None
    mask = encoding.repeated(job.mask[:, None, :: job.factor, :: job.factor])
    masked = _masked_latents(job, encoding, needed=inpaint_unet)
    if inpaint_unet:
        assert masked is not None
        return Start(latent=latent, extra=np.ascontiguousarray(np.concatenate([mask, masked], axis=1)))
    assert image is not None
    return Start(latent=latent, mask=mask, known=np.stack([image, fresh], axis=1))


def _inpaint_seen_and_put_back(job: Job, encoding: _Encoding, given: F32 | None, from_noise: float) -> Start:
    """Inpaint with a UNet that sees what is known of the image, and put that back all the same.

    As in diffusers' Kandinsky: from noise, and with the masked part grown by a latent. Given generators, to the
    letter: what is put back is the first image, through the first mask.
    """
    assert job.mask is not None
    image = _image_latents(job, encoding)
    fresh = encoding.fresh() if given is None else given
    hole = encoding.repeated(_dilated(job.mask[:, :: job.factor, :: job.factor])[:, None])
    seen = np.concatenate([image * (1 - hole), 1 - hole], axis=1)
    if encoding.noise.kind != "own":
        hole, image = (np.repeat(array[:1], job.images, axis=0) for array in (hole, image))
    return Start(
        latent=np.float32(from_noise) * fresh,
        extra=np.ascontiguousarray(seen),
        mask=hole,
        known=np.stack([image, fresh], axis=1),
    )


def _dilated(mask: F32) -> F32:
    """Grow what is 1 in masks [N, h, w] as diffusers does: by all neighbours but those above right and below left."""
    grown = mask.copy()
    height, width = mask.shape[1:]
    for down, right in ((-1, 0), (0, -1), (-1, -1), (1, 0), (0, 1), (1, 1)):
        there = grown[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        here = mask[:, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
        np.maximum(there, here, out=there)
    return grown


def _image_latents(job: Job, encoding: _Encoding) -> F32:
    if job.image_latents is not None:
        return encoding.repeated(_checked(job.image_latents, "image", (), encoding.shape))
    assert job.pixels is not None
    return encoding.encode(job.pixels, repeated=job.task == "inpaint")


def _masked_latents(job: Job, encoding: _Encoding, *, needed: bool) -> F32 | None:
    """Encode the image with its masked part grey; its noise is used up even where the result is not needed."""
    latents = _checked(job.request.masked_image_latents, "masked_image_latents", (), encoding.shape)
    if latents is not None:
        if job.images % len(latents):
            raise UsageError(f"masked_image_latents: {len(latents)} for {job.images} images: pass one, or one for each")
        return encoding.repeated(latents)
    if job.pixels is None:
        if needed:
            raise UsageError("an inpainting checkpoint needs image as pixels, or masked_image_latents")
        return None
    assert job.mask is not None
    count = max(len(job.pixels), len(job.mask))
    if not needed:
        encoding.noise.normal_for_images(encoding.shape, count, repeated=True)
        return None
    hole = encoding.repeated(job.mask, count)[..., None] >= 0.5
    return encoding.encode(np.where(hole, np.float32(0.5), encoding.repeated(job.pixels, count)), repeated=True)


def _noised(image: F32, fresh: F32, levels: tuple[float, float]) -> F32:
    return np.float32(levels[0]) * image + np.float32(levels[1]) * fresh


def _checked(value: Any, name: str, leading: Sequence[int], shape: tuple[int, ...]) -> Any:
    """Return latents as float32, None as None.

    Raises:
        UsageError: they have another shape; ``leading`` is the number that is needed, if that is known.

    """
    if value is None:
        return None
    array = array_from(value).astype(np.float32, copy=False)
    if array.shape[1:] != shape or (leading and array.shape[:1] != tuple(leading)):
        needed = [*(leading or ("N",)), *shape]
        raise UsageError(f"{name} has shape {list(array.shape)}; this request needs {needed}")
    return np.ascontiguousarray(array)
