"""Kandinsky's networks against diffusers' and transformers' modules of the same weights, in float32, at odd sizes."""

from typing import Any

import diffusers
import pytest
import torch
import transformers
from sdengine.engines.errors import CheckpointError
from sdengine.engines.nets.conditioner import unpack_key_values
from sdengine.engines.nets.image_encoder import ImageEncoder
from sdengine.engines.nets.image_encoder_config import ImageEncoderConfig
from sdengine.engines.nets.image_unet import HintLatents, ImageConditioner, ImageUNet
from sdengine.engines.nets.image_unet_config import image_unet_config
from sdengine.engines.nets.movq import MoVQ, MoVQDecoder, MoVQEncoder
from sdengine.engines.nets.movq_config import MoVQConfig
from sdengine.engines.nets.prior import Prior, PriorConditioner, PriorDecoder
from sdengine.engines.nets.prior_config import PriorConfig

from .test_parity import TOLERANCE, copy, randomise

UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 8,
    "block_out_channels": (16, 32, 48),
    "layers_per_block": 1,
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "attention_head_dim": 8,
    "cross_attention_dim": 12,
    "encoder_hid_dim": 20,
    "encoder_hid_dim_type": "image_proj",
    "addition_embed_type": "image",
    "resnet_time_scale_shift": "scale_shift",
    "norm_num_groups": 8,
    "sample_size": 16,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "decoder": {},
    "inpaint": {"in_channels": 9, "layers_per_block": (2, 1, 2)},
    "hint": {"in_channels": 8, "addition_embed_type": "image_hint", "attention_head_dim": (16, 8, 4)},
}
PRIOR: dict[str, Any] = {
    "num_attention_heads": 3,
    "attention_head_dim": 8,
    "num_layers": 3,
    "embedding_dim": 20,
    "num_embeddings": 11,
}
MOVQ: dict[str, Any] = {
    "block_out_channels": (32, 64, 96),
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
    "layers_per_block": 1,
    "latent_channels": 4,
    "vq_embed_dim": 4,
    "num_vq_embeddings": 12,
    "norm_num_groups": 8,
    "norm_type": "spatial",
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(16, 16), (12, 20)], ids=str)
def test_unet(variant: str, size: tuple[int, int]) -> None:
    theirs = randomise(diffusers.UNet2DConditionModel(**UNET | VARIANTS[variant]))
    config = image_unet_config(dict(theirs.config))
    assert (config.inpaints, config.latent) == (variant == "inpaint", 4)
    ours: Any = copy(ImageUNet(config), theirs)
    embeds, t = torch.randn(2, 20), torch.tensor([981.0, 3.5])
    added: dict[str, Any] = {"image_embeds": embeds}
    x = given = torch.randn(2, 4 if variant == "hint" else config.in_channels, *size)
    if variant == "hint":
        hint = torch.rand(2, 8 * size[0], 8 * size[1], 3)
        added["hint"] = hint.permute(0, 3, 1, 2)
        given = torch.cat([x, HintLatents(ours)(hint)], 1)
    expected = theirs(x, t, encoder_hidden_states=None, added_cond_kwargs=added).sample[:, :4]
    *packed, embedding = ImageConditioner(ours)(embeds)
    assert [(p.shape[1], p.shape[4]) for p in packed] == [(n, width) for width, n in config.cross_layers().items()]
    actual = ours(given, t, unpack_key_values(ours, packed), embedding=embedding)
    torch.testing.assert_close(actual, expected, **TOLERANCE)
    rows = torch.tensor([1, 0, 1])
    by_row = ours(
        given, t[rows], unpack_key_values(ours, [p[rows] for p in packed]), embedding=embedding[rows], rows=(rows, rows)
    )
    torch.testing.assert_close(by_row, expected[rows], **TOLERANCE)


def test_prior() -> None:
    theirs = randomise(diffusers.PriorTransformer(**PRIOR))
    config = PriorConfig.from_diffusers(dict(theirs.config))
    ours: Any = copy(Prior(config), theirs)
    x, hidden, pooled = torch.randn(3, 20), torch.randn(3, 11, 20), torch.randn(3, 20)
    mask = (torch.arange(11)[None] < torch.tensor([[11], [2], [7]])).float()
    t = torch.tensor([999.0, 42.0, 0.0])
    expected = theirs(
        x, t, proj_embedding=pooled, encoder_hidden_states=hidden, attention_mask=mask.bool()
    ).predicted_image_embedding
    key_values, key_bias = PriorConditioner(ours)(hidden, pooled, mask)
    torch.testing.assert_close(ours(x, t, key_values, key_bias), expected, **TOLERANCE)
    decoded = PriorDecoder(ours)(x[:, :, None, None])
    torch.testing.assert_close(decoded, theirs.post_process_latents(x), **TOLERANCE)


def test_image_encoder() -> None:
    settings = transformers.CLIPVisionConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, image_size=24, patch_size=8,
        projection_dim=20, hidden_act="gelu",
    )  # fmt: skip
    theirs = randomise(transformers.CLIPVisionModelWithProjection(settings))
    ours: Any = copy(ImageEncoder(ImageEncoderConfig.from_transformers(settings.to_dict())), theirs)
    pixels = torch.randn(3, 24, 24, 3)
    pixels[1] = 0
    torch.testing.assert_close(ours(pixels), theirs(pixels.permute(0, 3, 1, 2)).image_embeds, **TOLERANCE)


def test_movq() -> None:
    theirs = randomise(diffusers.VQModel(**MOVQ))
    config = MoVQConfig.from_diffusers(dict(theirs.config))
    assert config.factor == 4
    ours: Any = copy(MoVQ(config), theirs)
    latent = torch.randn(2, 4, 6, 10)
    expected = (theirs.decode(latent, force_not_quantize=True).sample / 2 + 0.5).permute(0, 2, 3, 1)
    pixels, picture, magnitude = MoVQDecoder(ours)(latent)
    torch.testing.assert_close(pixels, expected, **TOLERANCE)
    assert torch.equal(picture, (pixels.clamp(0, 1) * 255).round().to(torch.uint8)) and magnitude.isfinite().all()
    image = torch.rand(2, 24, 40, 3)
    encoded = theirs.encode(image.permute(0, 3, 1, 2) * 2 - 1).latents
    torch.testing.assert_close(MoVQEncoder(ours)(image), encoded, **TOLERANCE)


def test_unsupported_options_are_named() -> None:
    with pytest.raises(CheckpointError, match="resnet_skip_time_act=True"):
        image_unet_config(UNET | {"resnet_skip_time_act": True})
    with pytest.raises(CheckpointError, match="down_block_types holds 'CrossAttnDownBlock2D'"):
        image_unet_config(UNET | {"down_block_types": ("CrossAttnDownBlock2D",) * 3})
    with pytest.raises(CheckpointError, match="norm_in_type='layer'"):
        PriorConfig.from_diffusers(PRIOR | {"norm_in_type": "layer"})
    with pytest.raises(CheckpointError, match="norm_type='group'"):
        MoVQConfig.from_diffusers(MOVQ | {"norm_type": "group"})
    with pytest.raises(CheckpointError, match="up_block_types holds 'UpBlock2D'"):
        MoVQConfig.from_diffusers(MOVQ | {"up_block_types": ("UpBlock2D",) * 3})
