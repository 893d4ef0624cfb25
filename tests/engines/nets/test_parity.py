"""Every network against diffusers' and transformers' module of the same weights, in float32, at odd sizes."""

from typing import Any

import diffusers
import pytest
import torch
import transformers
from sdengine.engines.errors import CheckpointError
from sdengine.engines.nets.conditioner import Conditioner, unpack_key_values
from sdengine.engines.nets.config import UNetConfig
from sdengine.engines.nets.controlnet import ControlNet, ControlNetStep, HintEmbedder
from sdengine.engines.nets.text_config import TextEncoderConfig
from sdengine.engines.nets.text_encoder import TextEncoder
from sdengine.engines.nets.unet import UNet
from sdengine.engines.nets.vae import VAE, VAEDecoder, VAEEncoder
from sdengine.engines.nets.vae_config import VAEConfig
from torch import nn

BASE: dict[str, Any] = {
    "block_out_channels": (16, 32, 48),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "sample_size": 16,
}
SD1 = BASE | {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4,
    "cross_attention_dim": 24,
}
SDXL = BASE | {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4, 6),
    "transformer_layers_per_block": (1, 2, 3),
    "cross_attention_dim": 40,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 20 + 6 * 8,
}
LCM = SD1 | {"time_cond_proj_dim": 32, "layers_per_block": (2, 1, 2)}
INPAINT = SD1 | {"in_channels": 9, "upcast_attention": True, "use_linear_projection": True}
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}  # float32, sums in another order


def randomise(module: nn.Module) -> nn.Module:
    """Fill every parameter, zero-initialised ones too, so that no term drops out of the comparison."""
    torch.manual_seed(7)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=(1 / parameter[0].numel()) ** 0.5)
        else:
            nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.2)
    return module.eval().requires_grad_(False)


def copy(ours: nn.Module, theirs: nn.Module) -> nn.Module:
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval().requires_grad_(False)


def conditions(config: UNetConfig, rows: int, tokens: int) -> dict[str, torch.Tensor]:
    given = {"hidden": torch.randn(rows, tokens, config.context)}
    if config.time_ids:
        given["pooled"] = torch.randn(rows, config.pooled)
        given["time_ids"] = torch.randint(0, 1024, (rows, config.time_ids)).float()
    if config.guidance_width:
        given["guidance"] = torch.tensor([4.0, 7.5])[:rows]
    return given


def theirs_conditions(given: dict[str, torch.Tensor], net: nn.Module) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"encoder_hidden_states": given["hidden"]}
    if "pooled" in given:
        kwargs["added_cond_kwargs"] = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}
    if "guidance" in given:
        embed = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
        kwargs["timestep_cond"] = embed(None, given["guidance"] - 1, net.config["time_cond_proj_dim"])
    return kwargs


def prepared(net: Any, given: dict[str, torch.Tensor]) -> tuple[list[torch.Tensor], Any, Any]:
    """Keys and values, embedding, offset."""
    outputs = list(Conditioner(net)(**given))
    offset = outputs.pop() if "guidance" in given else None
    embedding = outputs.pop() if "pooled" in given else None
    return outputs, embedding, offset


@pytest.mark.parametrize("options", [SD1, SDXL, LCM, INPAINT], ids=["sd1", "sdxl", "lcm", "inpaint"])
@pytest.mark.parametrize("size", [(16, 16), (13, 22)], ids=str)
def test_unet(options: dict[str, Any], size: tuple[int, int]) -> None:
    theirs = randomise(diffusers.UNet2DConditionModel(**options))
    config = UNetConfig.from_diffusers(dict(theirs.config), pooled=20)
    ours: Any = copy(UNet(config), theirs)
    given = conditions(config, 2, 9)
    x, t = torch.randn(2, config.in_channels, *size), torch.tensor([981.0, 3.5])
    expected = theirs(x, t, **theirs_conditions(given, theirs)).sample
    packed, embedding, offset = prepared(ours, given)
    actual = ours(x, t, unpack_key_values(ours, packed), embedding=embedding, offset=offset)
    torch.testing.assert_close(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("options", [SD1, SDXL], ids=["sd1", "sdxl"])
def test_controlnet(options: dict[str, Any]) -> None:
    allowed = {k: v for k, v in options.items() if k not in ("up_block_types", "sample_size")}
    theirs = randomise(
        diffusers.ControlNetModel(
            **allowed, conditioning_embedding_out_channels=(4, 8, 12, 16), controlnet_conditioning_channel_order="bgr"
        )
    )
    config = UNetConfig.from_diffusers(dict(theirs.config), pooled=20)
    ours: Any = copy(ControlNet(config), theirs)
    given = conditions(config, 2, 9)
    x, t = torch.randn(2, 4, 11, 16), torch.tensor([981.0, 3.5])
    image = torch.rand(2, 88, 128, 3)
    down, mid = theirs(
        x, t, controlnet_cond=image.permute(0, 3, 1, 2), **theirs_conditions(given, theirs), return_dict=False
    )
    packed, embedding, _ = prepared(ours, given)
    scale = torch.full((2, len(down) + 1), 0.7)
    scale[1] = 0
    before = [torch.ones_like(m) for m in (*down, mid)]
    maps = ControlNetStep(ours)(
        torch.stack([x] * 5, 1),
        torch.arange(2),
        t,
        torch.ones(2),
        HintEmbedder(ours)(image),
        scale,
        packed,
        before,
        embedding,
    )
    for actual, expected in zip(maps, (*down, mid), strict=True):
        torch.testing.assert_close(actual[0], 1 + 0.7 * expected[0], **TOLERANCE)
        torch.testing.assert_close(actual[1], torch.ones_like(expected[1]))


@pytest.mark.parametrize("moments", [{}, {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.9, 1.1, 1.2, 0.8]}])
def test_vae(moments: dict[str, Any]) -> None:
    theirs = randomise(
        diffusers.AutoencoderKL(
            block_out_channels=(8, 16, 24),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=4,
            scaling_factor=0.13,
            **moments,
        )
    )
    config = VAEConfig.from_diffusers(dict(theirs.config))
    assert config.factor == 4
    ours: Any = copy(VAE(config), theirs)
    mean = torch.tensor(moments.get("latents_mean", [0.0] * 4))[None, :, None, None]
    std = torch.tensor(moments.get("latents_std", [1.0] * 4))[None, :, None, None]
    latent = torch.randn(2, 4, 7, 10)
    expected = (theirs.decode(latent * std / 0.13 + mean).sample / 2 + 0.5).permute(0, 2, 3, 1)
    pixels, picture, magnitude = VAEDecoder(ours)(latent)
    torch.testing.assert_close(pixels, expected, **TOLERANCE)
    assert torch.equal(picture, (pixels.clamp(0, 1) * 255).round().to(torch.uint8))
    assert magnitude.isfinite().all()
    latent[1, 0, 3, 3] = torch.nan
    assert VAEDecoder(ours)(latent)[2].isfinite().tolist() == [True, False]
    image, noise = torch.rand(2, 28, 40, 3), torch.randn(2, 4, 7, 10)
    posterior = theirs.encode(image.permute(0, 3, 1, 2) * 2 - 1).latent_dist
    z = posterior.mean + posterior.std * noise
    sampled, moments = VAEEncoder(ours)(image, noise)
    torch.testing.assert_close(sampled, (z - mean) * 0.13 / std, **TOLERANCE)
    torch.testing.assert_close(moments, posterior.parameters, **TOLERANCE)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("eos", [2, 97])
def test_text_encoder(projected: bool, activation: str, eos: int) -> None:
    settings = transformers.CLIPTextConfig(
        vocab_size=99, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3,
        projection_dim=20, hidden_act=activation, eos_token_id=eos, bos_token_id=98,
    )  # fmt: skip
    cls = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    theirs = randomise(cls(settings))
    ids = torch.randint(0, 97, (3, 77))
    ids[0, 5], ids[1, 76], ids[2, 40] = 97, 97, 97
    mask = torch.ones_like(ids)
    mask[1, 20:30] = 0
    result = theirs(ids, attention_mask=mask, output_hidden_states=True)
    for final_norm in (False, True):
        config = TextEncoderConfig.from_transformers(settings.to_dict(), projected=projected, final_norm=final_norm)
        ours: Any = TextEncoder(config).eval().requires_grad_(False)
        # transformers 5 holds CLIPTextModel without the prefix that its files have.
        weights = theirs.state_dict()
        ours.load_state_dict(weights if projected else {f"text_model.{name}": w for name, w in weights.items()})
        for layer in range(4):
            hidden, pooled = ours(ids, mask, torch.tensor([layer]), torch.zeros(1, 24))
            expected = result.hidden_states[layer]
            if final_norm:
                expected = ours.text_model.final_layer_norm(expected)
            torch.testing.assert_close(hidden, expected, **TOLERANCE)
            torch.testing.assert_close(pooled, result.text_embeds if projected else result.pooler_output, **TOLERANCE)


def test_unsupported_option_is_named() -> None:
    with pytest.raises(CheckpointError, match="class_embed_type='timestep'"):
        UNetConfig.from_diffusers(dict(SD1) | {"class_embed_type": "timestep"})
