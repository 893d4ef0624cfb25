"""The configuration of any network: of which class it is, its class in diffusers or transformers tells."""

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from .config import UNetConfig
from .image_encoder_config import ImageEncoderConfig
from .image_unet_config import image_unet_config
from .movq_config import MoVQConfig
from .prior_config import PriorConfig
from .safety_checker_config import SafetyCheckerConfig
from .text_config import TextEncoderConfig
from .vae_config import VAEConfig

__all__ = ["NetworkConfig", "network_config"]

NetworkConfig = (
    UNetConfig | VAEConfig | TextEncoderConfig | ImageEncoderConfig | PriorConfig | MoVQConfig | SafetyCheckerConfig
)

_ALONE: dict[str, Any] = {
    "AutoencoderKL": VAEConfig.from_diffusers,
    "CLIPVisionModelWithProjection": ImageEncoderConfig.from_transformers,
    "PriorTransformer": PriorConfig.from_diffusers,
    "StableDiffusionSafetyChecker": SafetyCheckerConfig.from_transformers,
    "VQModel": MoVQConfig.from_diffusers,
}
"""Networks that need nothing but their config."""
_UNETS = ("UNet2DConditionModel", "ControlNetModel")
_TEXT = {"CLIPTextModel": False, "CLIPTextModelWithProjection": True}


def network_config(
    class_name: str, config: Mapping[str, Any], *, pooled: int | None, final_norm: bool
) -> NetworkConfig:
    """Resolve the contents of a network's ``config.json``.

    Args:
        class_name: its class in diffusers or transformers.
        config: the contents.
        pooled: width of the pooled text, of a UNet that takes some; None if there is none.
        final_norm: of a text encoder, see :class:`~.text_config.TextEncoderConfig`.

    Raises:
        CheckpointError: there is no such class here, or an option has a value that is not implemented.

    """
    if class_name in _UNETS:
        if config.get("encoder_hid_dim_type") == "image_proj":
            return image_unet_config(config)
        return UNetConfig.from_diffusers(config, pooled=pooled)
    if class_name in _TEXT:
        return TextEncoderConfig.from_transformers(config, projected=_TEXT[class_name], final_norm=final_norm)
    if class_name not in _ALONE:
        raise CheckpointError(f"a {class_name} is no network that can be compiled")
    resolved: NetworkConfig = _ALONE[class_name](config)
    return resolved
