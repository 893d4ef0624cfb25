"""The latents that denoising starts from: noise, a noised image, or another model's latents.

Noise is taken from each stream in the order of diffusers' pipelines: first for encoding the image, then the initial
noise, then for encoding the masked image.
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
    """What the denoiser starts from, for S samples.

    Attributes:
        latent: float32 [S, C, h, w].
        extra: float32 [S, C + 1, h, w], the further channels of an inpainting UNet's input: mask and masked image, in
            the order that the UNet expects.
        mask: float32 [S, 1, h, w], for inpainting with an ordinary UNet: 1 is repainted.
        known: float32 [S, 2, C, h, w], the latents of the image, which are put back outside the mask, and the initial
            noise, which is added to them up to the current noise level.

    """

    latent: F32
    extra: F32 | None = None
    mask: F32 | None = None
    known: F32 | None = None

    @property
    def inputs(self) -> dict[str, Array]:
        """The denoiser's inputs of those names, without the ones that are None."""
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
        levels: factors of the image and of the noise at the noise level where the schedule starts.
        from_noise: factor of the initial noise for starting without an image.
        warnings: what the user should know is added to it.

    Raises:
        UsageError: the request's latents have a wrong shape.
        NonFiniteError: the VAE produced NaN or infinity.

    """
    shape = (unet.latent, job.height // job.factor, job.width // job.factor)
    of_prior = bool(job.stages) and np.ndim(job.request.latents) == 2
    latents = _checked(None if of_prior else job.request.latents, "latents", (job.images,), shape)
    encoding = _Encoding(
        components=components,
        noise=noise,
        shape=shape,
        repeat_each=job.request.image_embeds is not None,
        warnings=warnings,
    )
    if job.task == "inpaint" and unet.inpaints and unet.blends:
        return _inpaint_and_blend(job, encoding, latents, from_noise)
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
        repeat_each: in which order fewer images than samples are repeated: ``a a b b``, as in diffusers' pipelines
            that take embeddings of images, or else ``a b a b``.

    """

    components: Components
    noise: NoiseStreams
    shape: tuple[int, ...]
    repeat_each: bool
    warnings: list[str]

    def fresh(self) -> F32:
        """Sample the initial noise, [S, C, h, w]."""
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
        """Repeat [N, ...] to [count, ...]; None is one for each sample."""
        indices = np.arange(len(self.noise.seeds) if count is None else count)
        return array[indices // (len(indices) // len(array)) if self.repeat_each else indices % len(array)]


def _inpaint(
    job: Job,
    unet: UNetConfig,
    encoding: _Encoding,
    latents: F32 | None,
    levels: tuple[float, float],
    from_noise: float,
) -> Start:
    """Inpaint with an inpainting UNet, or with an ordinary one and blending after each step."""
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


def _inpaint_and_blend(job: Job, encoding: _Encoding, latents: F32 | None, from_noise: float) -> Start:
    """Inpaint with an inpainting UNet, and put the image outside the mask back after each step as well.

    As in diffusers' Kandinsky: it starts from noise, and the masked part is grown by one latent pixel. With generators
    it is exactly as in diffusers, which puts the first image back in all samples, outside the first mask.
    """
    assert job.mask is not None
    image = _image_latents(job, encoding)
    fresh = encoding.fresh() if latents is None else latents
    mask = encoding.repeated(_dilated(job.mask[:, :: job.factor, :: job.factor])[:, None])
    extra = np.concatenate([image * (1 - mask), 1 - mask], axis=1)
    if encoding.noise.kind != "seeds":
        mask, image = (np.repeat(array[:1], job.images, axis=0) for array in (mask, image))
    return Start(
        latent=np.float32(from_noise) * fresh,
        extra=np.ascontiguousarray(extra),
        mask=mask,
        known=np.stack([image, fresh], axis=1),
    )


def _dilated(mask: F32) -> F32:
    """Grow masks [N, h, w] as diffusers does: all neighbours of a 1 become 1, but those above right and below left."""
    grown = mask.copy()
    height, width = mask.shape[1:]
    for down, right in ((-1, 0), (0, -1), (-1, -1), (1, 0), (0, 1), (1, 1)):
        target = grown[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        shifted = mask[:, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
        np.maximum(target, shifted, out=target)
    return grown


def _image_latents(job: Job, encoding: _Encoding) -> F32:
    if job.image_latents is not None:
        return encoding.repeated(_checked(job.image_latents, "image", (), encoding.shape))
    assert job.pixels is not None
    return encoding.encode(job.pixels, repeated=job.task == "inpaint")


def _masked_latents(job: Job, encoding: _Encoding, *, needed: bool) -> F32 | None:
    """Encode the image with its masked part grey, [S, C, h, w].

    If the latents are not needed, they are not encoded, but their noise is taken from the streams, as in diffusers.
    """
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
    masked = encoding.repeated(job.mask, count)[..., None] >= 0.5
    return encoding.encode(np.where(masked, np.float32(0.5), encoding.repeated(job.pixels, count)), repeated=True)


def _noised(image: F32, fresh: F32, levels: tuple[float, float]) -> F32:
    """Add noise to an image's latents, by the factors of both."""
    return np.float32(levels[0]) * image + np.float32(levels[1]) * fresh


def _checked(value: Any, name: str, leading: Sequence[int], shape: tuple[int, ...]) -> Any:
    """Return latents as float32 [N, *shape]; None stays None.

    Args:
        value: the latents.
        name: the argument that they came in.
        leading: (N,), or () where N may be any number.
        shape: of one image's latents.

    Raises:
        UsageError: they have another shape.

    """
    if value is None:
        return None
    array = array_from(value).astype(np.float32, copy=False)
    if array.shape[1:] != shape or (leading and array.shape[:1] != tuple(leading)):
        needed = [*(leading or ("N",)), *shape]
        raise UsageError(f"{name} has shape {list(array.shape)}; this request needs {needed}")
    return np.ascontiguousarray(array)
