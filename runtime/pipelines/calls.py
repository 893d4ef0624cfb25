"""What diffusers' pipelines are called with: the class of each family and task, and its arguments in their order."""

from dataclasses import dataclass

__all__ = ["CALLS", "DECODERS", "PRIOR", "Call", "call_of_checkpoint", "class_for"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One of diffusers' pipeline classes.

    Attributes:
        name: of the class.
        label: whose checkpoints it is for: ``SD``, ``SDXL`` or ``Kandinsky 2.2``, see
            :class:`~sdengine.engines.families.Family`.
        task: ``text``, ``image`` or ``inpaint``.
        controlled: whether ControlNets take part.
        distilled: whether it is for latent consistency models.
        embedded: whether it takes embeddings of images, which a pipeline of a prior makes, in place of a prompt.
        arguments: of its ``__call__``, in diffusers' order (0.42).

    """

    name: str
    label: str
    task: str
    controlled: bool = False
    distilled: bool = False
    embedded: bool = False
    arguments: tuple[str, ...]

    @property
    def renamed(self) -> dict[str, str]:
        """Arguments that have another name here: text-to-image with ControlNet calls its control image ``image``."""
        return {"image": "control_image"} if self.controlled and self.task == "text" else {}

    @property
    def needs(self) -> tuple[str, ...]:
        """Arguments without which there is nothing to do."""
        pictures = {"text": (), "image": ("image",), "inpaint": ("image", "mask_image")}[self.task]
        control = ("image" if self.task == "text" else "control_image",) if self.controlled else ()
        embeds = ("image_embeds",) if self.embedded else ()
        return (*embeds, *pictures, *control, *(["hint"] if "hint" in self.arguments else []))


_NOISE = "num_images_per_prompt eta generator latents"
_EMBEDS = "prompt_embeds negative_prompt_embeds"
_POOLED = "pooled_prompt_embeds negative_pooled_prompt_embeds"
_ADAPTER = "ip_adapter_image ip_adapter_image_embeds"
_OUTPUT = "output_type return_dict cross_attention_kwargs"
_CALLBACK = "clip_skip callback_on_step_end callback_on_step_end_tensor_inputs"
_CONTROL = "controlnet_conditioning_scale guess_mode control_guidance_start control_guidance_end"
_NEGATIVE_SIZES = "negative_original_size negative_crops_coords_top_left negative_target_size"
_SIZES = f"original_size crops_coords_top_left target_size {_NEGATIVE_SIZES}"
_SCORES = "aesthetic_score negative_aesthetic_score"
_STEPS = "num_inference_steps timesteps sigmas"
_PROMPTS = "prompt prompt_2"
_NEGATIVES = "negative_prompt negative_prompt_2"
_SHARES = "denoising_start denoising_end"
_MASK = "mask_image masked_image_latents height width padding_mask_crop strength"


def _sd(name: str, task: str, arguments: str, *, controlled: bool = False) -> Call:
    return Call(name=name, label="SD", task=task, controlled=controlled, arguments=tuple(arguments.split()))


def _sdxl(name: str, task: str, arguments: str, *, controlled: bool = False) -> Call:
    return Call(name=name, label="SDXL", task=task, controlled=controlled, arguments=tuple(arguments.split()))


def _lcm(name: str, task: str, arguments: str) -> Call:
    return Call(name=name, label="SD", task=task, distilled=True, arguments=tuple(arguments.split()))


def _kandinsky(name: str, task: str, pictures: str, more: str = "callback callback_steps ") -> Call:
    strength = "strength " if task == "image" else ""
    arguments = (
        f"prompt {pictures}negative_prompt num_inference_steps guidance_scale {strength}num_images_per_prompt height "
        f"width prior_guidance_scale prior_num_inference_steps generator latents output_type {more}return_dict "
        "prior_callback_on_step_end prior_callback_on_step_end_tensor_inputs callback_on_step_end "
        "callback_on_step_end_tensor_inputs"
    )
    return Call(name=name, label="Kandinsky 2.2", task=task, arguments=tuple(arguments.split()))


_ALL = (
    _sd(
        "StableDiffusionPipeline",
        "text",
        f"prompt height width {_STEPS} guidance_scale negative_prompt {_NOISE} {_EMBEDS} {_ADAPTER} {_OUTPUT} "
        f"guidance_rescale {_CALLBACK}",
    ),
    _sd(
        "StableDiffusionImg2ImgPipeline",
        "image",
        f"prompt image strength {_STEPS} guidance_scale negative_prompt num_images_per_prompt eta generator {_EMBEDS} "
        f"{_ADAPTER} {_OUTPUT} {_CALLBACK}",
    ),
    _sd(
        "StableDiffusionInpaintPipeline",
        "inpaint",
        f"prompt image {_MASK} {_STEPS} guidance_scale negative_prompt {_NOISE} {_EMBEDS} {_ADAPTER} {_OUTPUT} "
        f"{_CALLBACK}",
    ),
    _sd(
        "StableDiffusionControlNetPipeline",
        "text",
        f"prompt image height width {_STEPS} guidance_scale negative_prompt {_NOISE} {_EMBEDS} {_ADAPTER} {_OUTPUT} "
        f"{_CONTROL} {_CALLBACK}",
        controlled=True,
    ),
    _sd(
        "StableDiffusionControlNetImg2ImgPipeline",
        "image",
        f"prompt image control_image height width strength num_inference_steps guidance_scale negative_prompt {_NOISE} "
        f"{_EMBEDS} {_ADAPTER} {_OUTPUT} {_CONTROL} {_CALLBACK}",
        controlled=True,
    ),
    _sd(
        "StableDiffusionControlNetInpaintPipeline",
        "inpaint",
        "prompt image mask_image control_image height width padding_mask_crop strength num_inference_steps "
        f"guidance_scale negative_prompt {_NOISE} {_EMBEDS} {_ADAPTER} {_OUTPUT} {_CONTROL} {_CALLBACK}",
        controlled=True,
    ),
    _sdxl(
        "StableDiffusionXLPipeline",
        "text",
        f"{_PROMPTS} height width {_STEPS} denoising_end guidance_scale {_NEGATIVES} {_NOISE} {_EMBEDS} {_POOLED} "
        f"{_ADAPTER} {_OUTPUT} guidance_rescale {_SIZES} {_CALLBACK}",
    ),
    _sdxl(
        "StableDiffusionXLImg2ImgPipeline",
        "image",
        f"{_PROMPTS} image strength {_STEPS} {_SHARES} guidance_scale {_NEGATIVES} {_NOISE} {_EMBEDS} {_POOLED} "
        f"{_ADAPTER} {_OUTPUT} guidance_rescale {_SIZES} {_SCORES} {_CALLBACK}",
    ),
    _sdxl(
        "StableDiffusionXLInpaintPipeline",
        "inpaint",
        f"{_PROMPTS} image {_MASK} {_STEPS} {_SHARES} guidance_scale {_NEGATIVES} {_NOISE} {_EMBEDS} {_POOLED} "
        f"{_ADAPTER} {_OUTPUT} guidance_rescale {_SIZES} {_SCORES} {_CALLBACK}",
    ),
    _sdxl(
        "StableDiffusionXLControlNetPipeline",
        "text",
        f"{_PROMPTS} image height width {_STEPS} denoising_end guidance_scale {_NEGATIVES} {_NOISE} {_EMBEDS} "
        f"{_POOLED} {_ADAPTER} {_OUTPUT} {_CONTROL} {_SIZES} {_CALLBACK}",
        controlled=True,
    ),
    _sdxl(
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "image",
        f"{_PROMPTS} image control_image height width strength num_inference_steps guidance_scale {_NEGATIVES} "
        f"{_NOISE} {_EMBEDS} {_POOLED} {_ADAPTER} {_OUTPUT} {_CONTROL} {_SIZES} {_SCORES} {_CALLBACK}",
        controlled=True,
    ),
    _sdxl(
        "StableDiffusionXLControlNetInpaintPipeline",
        "inpaint",
        f"{_PROMPTS} image mask_image control_image height width padding_mask_crop strength num_inference_steps "
        f"{_SHARES} guidance_scale {_NEGATIVES} {_NOISE} {_EMBEDS} {_ADAPTER} {_POOLED} {_OUTPUT} {_CONTROL} "
        f"guidance_rescale original_size crops_coords_top_left target_size {_SCORES} {_CALLBACK}",
        controlled=True,
    ),
    _lcm(
        "LatentConsistencyModelPipeline",
        "text",
        "prompt height width num_inference_steps original_inference_steps timesteps guidance_scale "
        f"num_images_per_prompt generator latents prompt_embeds {_ADAPTER} {_OUTPUT} {_CALLBACK}",
    ),
    _lcm(
        "LatentConsistencyModelImg2ImgPipeline",
        "image",
        "prompt image num_inference_steps strength original_inference_steps timesteps guidance_scale "
        f"num_images_per_prompt generator latents prompt_embeds {_ADAPTER} {_OUTPUT} {_CALLBACK}",
    ),
    _kandinsky("KandinskyV22CombinedPipeline", "text", ""),
    _kandinsky("KandinskyV22Img2ImgCombinedPipeline", "image", "image "),
    _kandinsky("KandinskyV22InpaintCombinedPipeline", "inpaint", "image mask_image ", ""),
)

_LATER = "callback_on_step_end callback_on_step_end_tensor_inputs"
_EARLIER = "callback callback_steps return_dict"
_NEGATIVE = "negative_image_embeds"
_DECODED = "height width num_inference_steps guidance_scale"


def _decoder(name: str, task: str, arguments: str) -> Call:
    own = tuple(f"image_embeds {arguments}".split())
    return Call(name=name, label="Kandinsky 2.2", task=task, embedded=True, arguments=own)


PRIOR = "KandinskyV22PriorPipeline"
"""The class that makes embeddings of images, and that checkpoints of priors name."""

_STAGES = (
    Call(
        name=PRIOR,
        label="Kandinsky 2.2",
        task="text",
        arguments=(
            *["prompt", "negative_prompt", "num_images_per_prompt", "num_inference_steps", "generator", "latents"],
            *f"guidance_scale output_type return_dict {_LATER}".split(),
        ),
    ),
    _decoder(
        "KandinskyV22Pipeline",
        "text",
        f"{_NEGATIVE} {_DECODED} num_images_per_prompt generator latents output_type return_dict {_LATER}",
    ),
    _decoder(
        "KandinskyV22Img2ImgPipeline",
        "image",
        f"image {_NEGATIVE} {_DECODED} strength num_images_per_prompt generator output_type return_dict {_LATER}",
    ),
    _decoder(
        "KandinskyV22InpaintPipeline",
        "inpaint",
        f"image mask_image {_NEGATIVE} {_DECODED} num_images_per_prompt generator latents output_type return_dict "
        f"{_LATER}",
    ),
    _decoder(
        "KandinskyV22ControlnetPipeline",
        "text",
        f"{_NEGATIVE} hint {_DECODED} num_images_per_prompt generator latents output_type {_EARLIER}",
    ),
    _decoder(
        "KandinskyV22ControlnetImg2ImgPipeline",
        "image",
        f"image {_NEGATIVE} hint {_DECODED} strength num_images_per_prompt generator output_type {_EARLIER}",
    ),
)
"""Stages of Kandinsky as pipelines of their own: diffusers' automatic pipelines choose the combined ones."""

DECODERS = ("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline", "KandinskyV22InpaintPipeline")
"""Classes that checkpoints of Kandinsky's decoders name; with their prior they are opened as the combined ones."""

CALLS: dict[str, Call] = {call.name: call for call in (*_ALL, *_STAGES)}
"""By the name of the class."""


def class_for(label: str, task: str, *, controlled: bool, distilled: bool) -> Call:
    """Return diffusers' class for a task; inpainting with a latent consistency model has none of its own."""
    own = [c for c in _ALL if (c.label, c.task, c.controlled) == (label, task, controlled)]
    return next((call for call in own if call.distilled == distilled), own[0])


def call_of_checkpoint(name: str) -> Call | None:
    """Return the class for a checkpoint whose ``model_index.json`` names this one; None if there is none."""
    if name in DECODERS:
        return CALLS[name.replace("Pipeline", "CombinedPipeline")]
    return CALLS.get(name)
