"""diffusers' pipeline classes, one for each family and task; what differs is data, see :mod:`.calls`."""

from .calls import CALLS
from .pipeline import DiffusionPipeline
from .prior_pipeline import KandinskyV22PriorPipeline

__all__ = [
    "KandinskyV22CombinedPipeline",
    "KandinskyV22ControlnetImg2ImgPipeline",
    "KandinskyV22ControlnetPipeline",
    "KandinskyV22Img2ImgCombinedPipeline",
    "KandinskyV22Img2ImgPipeline",
    "KandinskyV22InpaintCombinedPipeline",
    "KandinskyV22InpaintPipeline",
    "KandinskyV22Pipeline",
    "KandinskyV22PriorPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLPipeline",
]


class StableDiffusionPipeline(DiffusionPipeline):
    """Text-to-image with Stable Diffusion 1 and 2."""

    _call = CALLS["StableDiffusionPipeline"]


class StableDiffusionImg2ImgPipeline(DiffusionPipeline):
    """Image-to-image with Stable Diffusion 1 and 2."""

    _call = CALLS["StableDiffusionImg2ImgPipeline"]


class StableDiffusionInpaintPipeline(DiffusionPipeline):
    """Inpainting with Stable Diffusion 1 and 2, with either kind of UNet."""

    _call = CALLS["StableDiffusionInpaintPipeline"]


class StableDiffusionControlNetPipeline(DiffusionPipeline):
    """Text-to-image with Stable Diffusion 1 and 2 and ControlNets."""

    _call = CALLS["StableDiffusionControlNetPipeline"]


class StableDiffusionControlNetImg2ImgPipeline(DiffusionPipeline):
    """Image-to-image with Stable Diffusion 1 and 2 and ControlNets."""

    _call = CALLS["StableDiffusionControlNetImg2ImgPipeline"]


class StableDiffusionControlNetInpaintPipeline(DiffusionPipeline):
    """Inpainting with Stable Diffusion 1 and 2 and ControlNets."""

    _call = CALLS["StableDiffusionControlNetInpaintPipeline"]


class StableDiffusionXLPipeline(DiffusionPipeline):
    """Text-to-image with SDXL."""

    _call = CALLS["StableDiffusionXLPipeline"]


class StableDiffusionXLImg2ImgPipeline(DiffusionPipeline):
    """Image-to-image with SDXL and its refiner."""

    _call = CALLS["StableDiffusionXLImg2ImgPipeline"]


class StableDiffusionXLInpaintPipeline(DiffusionPipeline):
    """Inpainting with SDXL and its refiner, with either kind of UNet."""

    _call = CALLS["StableDiffusionXLInpaintPipeline"]


class StableDiffusionXLControlNetPipeline(DiffusionPipeline):
    """Text-to-image with SDXL and ControlNets."""

    _call = CALLS["StableDiffusionXLControlNetPipeline"]


class StableDiffusionXLControlNetImg2ImgPipeline(DiffusionPipeline):
    """Image-to-image with SDXL and ControlNets."""

    _call = CALLS["StableDiffusionXLControlNetImg2ImgPipeline"]


class StableDiffusionXLControlNetInpaintPipeline(DiffusionPipeline):
    """Inpainting with SDXL and ControlNets."""

    _call = CALLS["StableDiffusionXLControlNetInpaintPipeline"]


class LatentConsistencyModelPipeline(DiffusionPipeline):
    """Text-to-image with a latent consistency model."""

    _call = CALLS["LatentConsistencyModelPipeline"]


class LatentConsistencyModelImg2ImgPipeline(DiffusionPipeline):
    """Image-to-image with a latent consistency model."""

    _call = CALLS["LatentConsistencyModelImg2ImgPipeline"]


class KandinskyV22CombinedPipeline(DiffusionPipeline):
    """Text-to-image with Kandinsky 2.2."""

    _call = CALLS["KandinskyV22CombinedPipeline"]


class KandinskyV22Img2ImgCombinedPipeline(DiffusionPipeline):
    """Image-to-image with Kandinsky 2.2."""

    _call = CALLS["KandinskyV22Img2ImgCombinedPipeline"]


class KandinskyV22InpaintCombinedPipeline(DiffusionPipeline):
    """Inpainting with Kandinsky 2.2."""

    _call = CALLS["KandinskyV22InpaintCombinedPipeline"]


class _KandinskyV22Decoder(DiffusionPipeline):
    """The second stage of Kandinsky 2.2: images from embeddings. The prior's engines are not opened for it."""

    _preload = ("conditioner", "denoiser", "vae_decoder")


class KandinskyV22Pipeline(_KandinskyV22Decoder):
    """Images from embeddings with Kandinsky 2.2."""

    _call = CALLS["KandinskyV22Pipeline"]


class KandinskyV22Img2ImgPipeline(_KandinskyV22Decoder):
    """Image-to-image from embeddings with Kandinsky 2.2."""

    _call = CALLS["KandinskyV22Img2ImgPipeline"]


class KandinskyV22InpaintPipeline(_KandinskyV22Decoder):
    """Inpainting from embeddings with Kandinsky 2.2."""

    _call = CALLS["KandinskyV22InpaintPipeline"]


class KandinskyV22ControlnetPipeline(_KandinskyV22Decoder):
    """Images from embeddings and a hint with Kandinsky 2.2."""

    _call = CALLS["KandinskyV22ControlnetPipeline"]


class KandinskyV22ControlnetImg2ImgPipeline(_KandinskyV22Decoder):
    """Image-to-image from embeddings and a hint with Kandinsky 2.2."""

    _call = CALLS["KandinskyV22ControlnetImg2ImgPipeline"]
