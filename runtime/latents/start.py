"""Where drawing starts: noise, a noised picture, or what another model left.

Each stream is drawn from in the order of diffusers' pipelines: the picture's encoding, the initial noise, the masked
picture's encoding.
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
from ..request.resolve import Job
from .seeds import NoiseStreams

__all__ = ["Start", "start_for"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the loop begins with, for S samples.

    Attributes:
        latent: float32 [S, C, h, w].
        extra: float32 [S, C + 1, h, w], mask and masked picture, in the order in which an inpainting UNet sees them
            beside the latent.
        mask: float32 [S, 1, h, w], for an ordinary UNet's inpainting: 1 is repainted.
        known: float32 [S, 2, C, h, w], latents of the picture that is put back elsewhere, and the initial noise.

    """

    latent: F32
    extra: F32 | None = None
    mask: F32 | None = None
    known: F32 | None = None

    @property
    def inputs(self) -> dict[str, Array]:
        """The denoiser's inputs that come from here, beside the latent."""
        found = {"extra": self.extra, "mask": self.mask, "known": self.known}
        return {name: np.ascontiguousarray(array) for name, array in found.items() if array is not None}


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
        components: the engines; pictures are encoded.
        noise: the images' streams.
        levels: factors of the picture and of the noise where the schedule starts.
        from_noise: factor of the noise where the schedule would start without a picture.
        warnings: where to add what the user should know.

    Raises:
        UsageError: latents do not fit the job.
        NonFiniteError: the VAE produced NaN or infinity.

    """
    shape = (unet.latent, job.height // job.factor, job.width // job.factor)
    noise_given = job.request.latents if not job.stages or np.ndim(job.request.latents) != 2 else None
    given = _checked(noise_given, "latents", (job.images,), shape)
    encoding = _Encoding(components=components, noise=noise, shape=shape, warnings=warnings)
    if job.task == "inpaint" and unet.inpaints and unet.blends:
        return _inpaint_seen_and_put_back(job, encoding, given, from_noise)
    if job.task == "inpaint":
        return _inpaint(job, unet, encoding, given, levels, from_noise)
    if job.task == "text":
        return Start(latent=np.float32(from_noise) * (encoding.fresh() if given is None else given))
    if given is not None:
        return Start(latent=given)
    picture = _picture(job, encoding)
    if job.request.denoising_start is not None:
        return Start(latent=picture)
    return Start(latent=_noised(picture, encoding.fresh(), levels))


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """How pictures become latents of ``shape``."""

    components: Components
    noise: NoiseStreams
    shape: tuple[int, ...]
    warnings: list[str]

    def fresh(self) -> F32:
        return self.noise.draw(self.shape)

    def encode(self, pixels: F32, *, repeated: bool) -> F32:
        """Encode pictures [N, H, W, 3], and repeat them to [S, C, h, w]."""
        random = any(tensor.name == "noise" for tensor in self.components.spec("vae_encoder").inputs)
        drawn = self.noise.draw_for_pictures(self.shape, len(pixels), repeated=repeated) if random else pixels
        found = []
        for i in range(len(drawn)):
            inputs = {"image": np.ascontiguousarray(pixels[i % len(pixels)][None])}
            if random:
                inputs["noise"] = drawn[i : i + 1]
            found.append(encoded(self.components, inputs, self.warnings))
        return _repeated(np.concatenate(found), len(self.noise.seeds))


def _inpaint(
    job: Job,
    unet: UNetConfig,
    encoding: _Encoding,
    given: F32 | None,
    levels: tuple[float, float],
    from_noise: float,
) -> Start:
    inpaint_unet = unet.inpaints
    handed_over = job.request.denoising_start is not None
    over_picture = handed_over or (given is None and job.strength is not None)
    picture = _picture(job, encoding) if over_picture or not inpaint_unet else None
    fresh = encoding.fresh() if given is None else given
    if handed_over:
        assert picture is not None
        latent = picture.copy()
    elif over_picture:
        assert picture is not None
        latent = _noised(picture, fresh, levels)
    else:
        latent = np.float32(from_noise) * fresh
    assert job.mask is not None
    mask = _repeated(job.mask[:, None, :: job.factor, :: job.factor], job.images)
    masked = _masked_latents(job, encoding, needed=inpaint_unet)
    if inpaint_unet:
        assert masked is not None
        return Start(latent=latent, extra=np.ascontiguousarray(np.concatenate([mask, masked], axis=1)))
    assert picture is not None
    return Start(latent=latent, mask=mask, known=np.stack([picture, fresh], axis=1))


def _inpaint_seen_and_put_back(job: Job, encoding: _Encoding, given: F32 | None, from_noise: float) -> Start:
    """Inpaint with a UNet that sees what is known of the picture, and put that back all the same.

    As in diffusers' Kandinsky: from noise, and with the masked part grown by a latent. Given generators, to the
    letter: what is put back is the first picture, through the first mask.
    """
    assert job.mask is not None
    picture = _picture(job, encoding)
    fresh = encoding.fresh() if given is None else given
    hole = _repeated(_dilated(job.mask[:, :: job.factor, :: job.factor])[:, None], job.images)
    seen = np.concatenate([picture * (1 - hole), 1 - hole], axis=1)
    if encoding.noise.kind != "own":
        hole, picture = (np.repeat(array[:1], job.images, axis=0) for array in (hole, picture))
    return Start(
        latent=np.float32(from_noise) * fresh,
        extra=np.ascontiguousarray(seen),
        mask=hole,
        known=np.stack([picture, fresh], axis=1),
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


def _picture(job: Job, encoding: _Encoding) -> F32:
    if job.picture_latents is not None:
        return _repeated(_checked(job.picture_latents, "image", (), encoding.shape), job.images)
    assert job.pixels is not None
    return encoding.encode(job.pixels, repeated=job.task == "inpaint")


def _masked_latents(job: Job, encoding: _Encoding, *, needed: bool) -> F32 | None:
    """Encode the picture with its masked part grey; its noise is drawn even where the result is not needed."""
    given = _checked(job.request.masked_image_latents, "masked_image_latents", (), encoding.shape)
    if given is not None:
        if job.images % len(given):
            raise UsageError(
                f"masked_image_latents: {len(given)} given for {job.images} images: give one, or one for each"
            )
        return _repeated(given, job.images)
    if job.pixels is None:
        if needed:
            raise UsageError("an inpainting checkpoint needs image as a picture, or masked_image_latents")
        return None
    assert job.mask is not None
    count = max(len(job.pixels), len(job.mask))
    if not needed:
        encoding.noise.draw_for_pictures(encoding.shape, count, repeated=True)
        return None
    hole = _repeated(job.mask, count)[..., None] >= 0.5
    return encoding.encode(np.where(hole, np.float32(0.5), _repeated(job.pixels, count)), repeated=True)


def _noised(picture: F32, fresh: F32, levels: tuple[float, float]) -> F32:
    return np.float32(levels[0]) * picture + np.float32(levels[1]) * fresh


def _repeated(array: F32, count: int) -> F32:
    """Repeat [N, ...] to [count, ...]: entry i is array i modulo N."""
    return array[np.arange(count) % len(array)]


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
