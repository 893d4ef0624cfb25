"""Tiny random checkpoints of every family, built and saved by diffusers itself.

Each builder takes the folder to write and returns it::

    sd1  sd1_checked  sd2  sdxl  sdxl_refiner  sd_inpaint  sdxl_inpaint  lcm  controlnet_sd  controlnet_sdxl
    kandinsky_prior  kandinsky  kandinsky_inpaint  kandinsky_hint

Widths, head counts and depths differ from level to level, so that a dimension taken from the wrong place cannot fit
by luck. Norms, biases and the zero-initialised convolutions are made random as well: a network that ignores one of
them must give another picture. The same ``seed`` gives the same weights. The ControlNets fit ``sd1`` and ``sdxl``,
and the refiner takes the latents of ``sdxl``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    KandinskyV22ControlnetPipeline,
    KandinskyV22InpaintPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    PriorTransformer,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from .clip_tokenizer import BOS, EOS, clip_tokenizer, save_tokenizer, vocabulary

__all__ = [
    "BUILDERS",
    "controlnet_sd",
    "controlnet_sdxl",
    "kandinsky",
    "kandinsky_hint",
    "kandinsky_inpaint",
    "kandinsky_prior",
    "lcm",
    "randomise",
    "safety_checker",
    "sd1",
    "sd1_checked",
    "sd2",
    "sd_inpaint",
    "sdxl",
    "sdxl_inpaint",
    "sdxl_refiner",
]

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}

_SD1_UNET: dict[str, Any] = {
    "block_out_channels": (16, 24, 32, 40),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "cross_attention_dim": 24,
    "norm_num_groups": 8,
}
_SD1_UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")

_SDXL_UNET: dict[str, Any] = {
    "block_out_channels": (16, 24, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (2, 3, 2),
    "cross_attention_dim": 24 + 32,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 10,
    "projection_class_embeddings_input_dim": 6 * 10 + 20,
    "norm_num_groups": 8,
}
_SDXL_UP = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")


def randomise(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Make random what an initialiser leaves at zero or one: norms, biases and zero convolutions; switch to eval."""
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                centre = 1.0 if bool((parameter == 1).all()) else 0.0
                parameter.copy_(centre + 0.1 * noise)
            elif not parameter.any():
                parameter.copy_(0.1 * noise)
    module.eval()


def _text(kind: type, hidden: int, *, layers: int, act: str, projection: int, seed: int) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(vocabulary()),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        hidden_act=act,
        projection_dim=projection,
        max_position_embeddings=77,
        bos_token_id=vocabulary()[BOS],
        eos_token_id=vocabulary()[EOS],
        pad_token_id=1,
        initializer_factor=5.0,
    )
    torch.manual_seed(seed)
    model = kind(config)
    randomise(model, torch.Generator().manual_seed(seed))
    return model


def _unet(config: dict[str, Any], *, seed: int) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(**config)
    randomise(unet, torch.Generator().manual_seed(seed))
    return unet


def _vae(channels: tuple[int, ...], *, scaling: float, seed: int, force_upcast: bool = False) -> AutoencoderKL:
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=scaling,
        sample_size=64,
        force_upcast=force_upcast,
    )
    randomise(vae, torch.Generator().manual_seed(seed))
    return vae


def _sd_parts(seed: int, *, act: str = "quick_gelu", **unet: Any) -> dict[str, Any]:
    return {
        "text_encoder": _text(CLIPTextModel, 24, layers=2, act=act, projection=24, seed=seed),
        "tokenizer": clip_tokenizer(),
        "unet": _unet({**_SD1_UNET, "up_block_types": _SD1_UP, "sample_size": 8, **unet}, seed=seed + 1),
        "vae": _vae((8, 12, 16, 20), scaling=0.18215, seed=seed + 2),
        "scheduler": PNDMScheduler(**_BETAS, skip_prk_steps=True),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _sdxl_parts(seed: int, **unet: Any) -> dict[str, Any]:
    return {
        "text_encoder": _text(CLIPTextModel, 24, layers=2, act="quick_gelu", projection=24, seed=seed),
        "text_encoder_2": _text(CLIPTextModelWithProjection, 32, layers=3, act="gelu", projection=20, seed=seed + 1),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer("!"),
        "unet": _unet({**_SDXL_UNET, "up_block_types": _SDXL_UP, "sample_size": 8, **unet}, seed=seed + 2),
        "vae": _vae((8, 12, 16, 20), scaling=0.13025, seed=seed + 3, force_upcast=True),
        "scheduler": EulerDiscreteScheduler(**_BETAS, timestep_spacing="leading"),
    }


def _save(pipeline: DiffusionPipeline, folder: Path) -> Path:
    pipeline.save_pretrained(folder)
    return folder


def sd1(folder: Path, *, seed: int = 0) -> Path:
    """SD 1: one CLIP encoder, epsilon, VAE factor 8; the tokenizer as ``vocab.json`` and ``merges.txt``."""
    _save(StableDiffusionPipeline(**_sd_parts(seed)), folder)
    save_tokenizer(folder / "tokenizer", legacy=True)
    return folder


def safety_checker(*, seed: int = 0) -> StableDiffusionSafetyChecker:
    """A safety checker for images of 32 pixels, which flags nothing before its thresholds are set."""
    torch.manual_seed(seed)
    vision = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 32,
        "patch_size": 8,
        "initializer_factor": 5.0,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config={}, projection_dim=16))
    generator = torch.Generator().manual_seed(seed)
    randomise(checker, generator)
    with torch.no_grad():
        for embeds in (checker.concept_embeds, checker.special_care_embeds):
            embeds.copy_(torch.randn(embeds.shape, generator=generator))
        for thresholds in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
            thresholds.fill_(1.5)
    return checker


def sd1_checked(folder: Path, *, seed: int = 0) -> Path:
    """SD 1 with a safety checker, which flags about half of the images of ``"a cat"`` in two steps of 64 x 96."""
    checker = safety_checker(seed=seed)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    parts = _sd_parts(seed) | {"feature_extractor": processor}
    pipeline = StableDiffusionPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    drawing = {"num_inference_steps": 2, "height": 64, "width": 96}
    images = [pipeline("a cat", generator=torch.Generator().manual_seed(i), **drawing).images[0] for i in range(6)]
    with torch.no_grad():
        seen = processor(images, return_tensors="pt").pixel_values
        embeds = checker.visual_projection(checker.vision_model(seen)[1])
        cosines = torch.nn.functional.cosine_similarity(embeds[:, None], checker.concept_embeds[None], dim=-1)
        # The concept that divides them best, with its threshold in the middle of the gap.
        ordered = cosines.sort(dim=0).values
        gaps = ordered[3] - ordered[2]
        concept = int(gaps.argmax())
        checker.concept_embeds_weights[concept] = (ordered[2, concept] + ordered[3, concept]) / 2
    checked = StableDiffusionPipeline(**parts | {"safety_checker": checker, "requires_safety_checker": True})
    return _save(checked, folder)


def sd2(folder: Path, *, seed: int = 0) -> Path:
    """SD 2: v-prediction, linear projections, heads by level, an OpenCLIP-like encoder, VAE factor 4."""
    parts = _sd_parts(seed, act="gelu", attention_head_dim=(2, 3, 4, 5), use_linear_projection=True, layers_per_block=2)
    parts["tokenizer"] = clip_tokenizer("!")
    parts["vae"] = _vae((8, 12, 16), scaling=0.18215, seed=seed + 2)
    parts["scheduler"] = DDIMScheduler(
        **_BETAS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False
    )
    return _save(StableDiffusionPipeline(**parts), folder)


def sdxl(folder: Path, *, seed: int = 0) -> Path:
    """SDXL base: two encoders, size conditions, three levels of which the first has no attention."""
    return _save(StableDiffusionXLPipeline(**_sdxl_parts(seed), force_zeros_for_empty_prompt=True), folder)


def sdxl_refiner(folder: Path, *, seed: int = 0) -> Path:
    """SDXL refiner: the second encoder only, aesthetic-score conditions, attention on the two middle levels."""
    parts = _sdxl_parts(
        seed,
        block_out_channels=(16, 24, 32, 40),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 3, 2, 5),
        transformer_layers_per_block=2,
        cross_attention_dim=32,
        projection_class_embeddings_input_dim=5 * 10 + 20,
    )
    parts |= {"text_encoder": None, "tokenizer": None, "force_zeros_for_empty_prompt": False}
    return _save(StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=True), folder)


def sd_inpaint(folder: Path, *, seed: int = 0) -> Path:
    """SD 1 inpainting: nine input channels, VAE factor 4."""
    parts = _sd_parts(seed, in_channels=9)
    parts["vae"] = _vae((8, 12, 16), scaling=0.18215, seed=seed + 2)
    return _save(StableDiffusionInpaintPipeline(**parts), folder)


def sdxl_inpaint(folder: Path, *, seed: int = 0) -> Path:
    """SDXL inpainting: nine input channels."""
    pipeline = StableDiffusionXLInpaintPipeline(**_sdxl_parts(seed, in_channels=9), force_zeros_for_empty_prompt=True)
    return _save(pipeline, folder)


def lcm(folder: Path, *, seed: int = 0) -> Path:
    """A distilled SD 1: the guidance scale is embedded (``time_cond_proj_dim``), LCM's scheduler."""
    parts = _sd_parts(seed, time_cond_proj_dim=12)
    parts["scheduler"] = LCMScheduler(**_BETAS)
    return _save(LatentConsistencyModelPipeline(**parts), folder)


def _controlnet(config: dict[str, Any], folder: Path, *, seed: int) -> Path:
    torch.manual_seed(seed)
    net = ControlNetModel(**config, conditioning_embedding_out_channels=(4, 8, 12, 16))
    randomise(net, torch.Generator().manual_seed(seed))
    with torch.no_grad():  # otherwise hardly anything of the control image would reach the picture
        for parameter in net.controlnet_cond_embedding.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.5)
    net.save_pretrained(folder)
    return folder


def controlnet_sd(folder: Path, *, seed: int = 0) -> Path:
    """A ControlNet for ``sd1``."""
    return _controlnet(_SD1_UNET, folder, seed=seed)


def controlnet_sdxl(folder: Path, *, seed: int = 0) -> Path:
    """A ControlNet for ``sdxl``."""
    return _controlnet(_SDXL_UNET, folder, seed=seed)


_EMBEDDING = 32
_IMAGE_UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 8,
    "block_out_channels": (16, 24, 32),
    "layers_per_block": 1,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "attention_head_dim": 8,
    "cross_attention_dim": 12,
    "encoder_hid_dim": _EMBEDDING,
    "encoder_hid_dim_type": "image_proj",
    "addition_embed_type": "image",
    "resnet_time_scale_shift": "scale_shift",
    "norm_num_groups": 8,
    "sample_size": 8,
}


def kandinsky_prior(folder: Path, *, seed: int = 0) -> Path:
    """The prior of Kandinsky 2.2, with both of its encoders; what it denoises is not centred at zero."""
    torch.manual_seed(seed)
    prior = PriorTransformer(
        num_attention_heads=3, attention_head_dim=8, num_layers=2, embedding_dim=_EMBEDDING, num_embeddings=77
    )
    generator = torch.Generator().manual_seed(seed)
    randomise(prior, generator)
    with torch.no_grad():
        prior.clip_std.copy_(0.5 + torch.rand(prior.clip_std.shape, generator=generator))
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=3,
            image_size=32,
            patch_size=8,
            projection_dim=_EMBEDDING,
            hidden_act="gelu",
            initializer_factor=5.0,
        )
    )
    randomise(encoder, generator)
    pipeline = KandinskyV22PriorPipeline(
        prior=prior,
        image_encoder=encoder,
        text_encoder=_text(
            CLIPTextModelWithProjection, _EMBEDDING, layers=2, act="gelu", projection=_EMBEDDING, seed=seed
        ),
        tokenizer=clip_tokenizer("!"),
        scheduler=UnCLIPScheduler(prediction_type="sample", clip_sample=True, clip_sample_range=10.0),
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )
    return _save(pipeline, folder)


def _movq(*, seed: int) -> VQModel:
    torch.manual_seed(seed)
    movq = VQModel(
        block_out_channels=(32, 32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        num_vq_embeddings=12,
        norm_num_groups=8,
        vq_embed_dim=4,
        norm_type="spatial",
        sample_size=64,
    )
    randomise(movq, torch.Generator().manual_seed(seed))
    return movq


def _decoder(kind: type[DiffusionPipeline], folder: Path, *, seed: int, clip: bool = True, **unet: Any) -> Path:
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        steps_offset=1,
        clip_sample=clip,
        clip_sample_range=1.0,
        variance_type="fixed_small",
    )
    parts = {"unet": _unet(_IMAGE_UNET | unet, seed=seed + 1), "movq": _movq(seed=seed + 2), "scheduler": scheduler}
    _save(kind(**parts), folder)
    (folder / "README.md").write_text("---\nprior:\n- kandinsky-community/kandinsky-2-2-prior\n---\n# A decoder\n")
    return folder


def kandinsky(folder: Path, *, seed: int = 0) -> Path:
    """Kandinsky 2.2's decoder: MoVQ factor 8, clipped DDPM, a card that names a prior on the Hub."""
    return _decoder(KandinskyV22Pipeline, folder, seed=seed)


def kandinsky_inpaint(folder: Path, *, seed: int = 0) -> Path:
    """Kandinsky 2.2's inpainting decoder: nine input channels, nothing clipped."""
    return _decoder(KandinskyV22InpaintPipeline, folder, seed=seed, clip=False, in_channels=9)


def kandinsky_hint(folder: Path, *, seed: int = 0) -> Path:
    """Kandinsky 2.2's decoder with a hint beside the latents."""
    return _decoder(KandinskyV22ControlnetPipeline, folder, seed=seed, in_channels=8, addition_embed_type="image_hint")


BUILDERS: dict[str, Callable[..., Path]] = {
    builder.__name__: builder
    for builder in (
        sd1,
        sd1_checked,
        sd2,
        sdxl,
        sdxl_refiner,
        sd_inpaint,
        sdxl_inpaint,
        lcm,
        controlnet_sd,
        controlnet_sdxl,
        kandinsky_prior,
        kandinsky,
        kandinsky_inpaint,
        kandinsky_hint,
    )
}
