"""Turning the parts of a single file into components: today's names, and a config."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ...engines.errors import CheckpointError
from .component import CheckpointComponent
from .configs import read_config
from .families import FamilyDefaults, StoredEncoder
from .inferred import controlnet_config, text_config, unet_config, vae_config
from .ldm_text import open_clip_tensors
from .ldm_unet import controlnet_names, unet_names
from .ldm_vae import vae_names
from .tensor import TensorSource
from .weight_names import is_buffer, normalised, verbatim_file

__all__ = ["controlnet_component", "text_component", "unet_component", "vae_component"]

_Stored = Mapping[str, TensorSource]
_Config = dict[str, object]
_PIXELS = 8  # per latent, in every family


def unet_component(stored: _Stored, family: FamilyDefaults, config: Path | None) -> CheckpointComponent:
    """Convert a UNet.

    Args:
        stored: its tensors in LDM's layout, without their prefix.
        family: what the shapes do not show.
        config: a folder in diffusers' layout whose configs are used instead of inferred ones.

    Raises:
        CheckpointError: weights are missing or belong to no UNet.

    """

    def infer(tensors: _Stored) -> _Config:
        inferred = unet_config(tensors, sample_size=family.sample_size)
        return inferred | {"upcast_attention": family.upcast_attention}

    return _component("unet", "UNet2DConditionModel", stored, _mapped(stored, unet_names), infer, config)


def vae_component(stored: _Stored, family: FamilyDefaults, config: Path | None) -> CheckpointComponent:
    """Convert a VAE, in LDM's layout or under diffusers' names; see :func:`unet_component`."""

    def infer(tensors: _Stored) -> _Config:
        return vae_config(
            tensors,
            scaling_factor=family.scaling_factor,
            sample_size=_PIXELS * family.sample_size,
            force_upcast=family.force_upcast,
        )

    new = any(name.startswith(("encoder.down_blocks.", "decoder.up_blocks.")) for name in stored)
    tensors = stored if new else _mapped(stored, vae_names)
    return _component("vae", "AutoencoderKL", stored, tensors, infer, config)


def text_component(stored: _Stored, encoder: StoredEncoder, config: Path | None) -> CheckpointComponent:
    """Convert a text encoder, CLIP (transformers' names) or OpenCLIP; see :func:`unet_component`."""
    tensors = open_clip_tensors(stored, penultimate=encoder.penultimate) if encoder.open_clip else stored
    class_name = "CLIPTextModelWithProjection" if encoder.name == "text_encoder_2" else "CLIPTextModel"
    activation = "gelu" if encoder.open_clip else "quick_gelu"
    return _component(
        encoder.name, class_name, stored, tensors, lambda t: text_config(t, hidden_act=activation), config
    )


def controlnet_component(stored: _Stored, config: Path | None) -> CheckpointComponent:
    """Convert a ControlNet, in LDM's layout or under diffusers' names; see :func:`unet_component`."""
    new = any(name.startswith("controlnet_cond_embedding.") for name in stored)
    tensors = stored if new else _mapped(stored, controlnet_names)
    return _component("controlnet", "ControlNetModel", stored, tensors, controlnet_config, config)


def _component(
    name: str,
    class_name: str,
    stored: _Stored,
    tensors: _Stored,
    infer: Callable[[_Stored], _Config],
    config: Path | None,
) -> CheckpointComponent:
    final = normalised(class_name, tensors)
    return CheckpointComponent(
        name=name,
        class_name=class_name,
        config=infer(final) if config is None else _read_config_of(config, name),
        tensors=final,
        file=verbatim_file(final, stored),
    )


def _read_config_of(folder: Path, name: str) -> _Config:
    """Read a config from a checkpoint's folder, or from the component's own."""
    for file in (folder / name / "config.json", folder / "config.json"):
        if file.is_file():
            return read_config(file, name)
    raise CheckpointError(f"{folder} holds no {name}/config.json")


def _mapped(stored: _Stored, rename: Callable[[Collection[str]], Mapping[str, str]]) -> dict[str, TensorSource]:
    weights = {name: tensor for name, tensor in stored.items() if not is_buffer(name)}
    renamed = rename(weights.keys())
    return {renamed[name]: tensor for name, tensor in weights.items()}
