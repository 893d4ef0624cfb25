"""Does what was opened fit together? Every weight against its network, and the networks against each other."""

from collections.abc import Mapping

from ...engines.errors import CheckpointError
from ...engines.nets.config import UNetConfig
from ...engines.nets.text_config import TextEncoderConfig
from ...engines.nets.vae_config import VAEConfig
from .component import CheckpointComponent

__all__ = ["check_components", "check_controlnet", "expected_shapes", "pooled_width"]

_Components = Mapping[str, CheckpointComponent]


def check_components(components: _Components) -> None:
    """Check configs, names and shapes, from the headers alone.

    Raises:
        CheckpointError: a config or a weight does not fit; the message names it and its file.

    """
    if "unet" in components:
        _check_channels(components)
        _check_text_width(components)
    pooled = pooled_width(components)
    for component in components.values():
        component.check(expected_shapes(component, pooled=pooled))


def check_controlnet(component: CheckpointComponent) -> None:
    """Check a ControlNet by itself; see :func:`check_components`."""
    pooled = None
    if component.config.get("addition_embed_type") == "text_time":
        # Pooled text and sizes enter the first layer side by side: any split that adds up gives the same shapes.
        whole = _number(component, "projection_class_embeddings_input_dim")
        pooled = whole % max(_number(component, "addition_time_embed_dim"), 1)
    component.check(expected_shapes(component, pooled=pooled))


def pooled_width(components: _Components) -> int | None:
    """Return the width of the pooled text that SDXL's UNets take, or None without a projecting encoder."""
    encoder = components.get("text_encoder_2")
    return None if encoder is None else _number(encoder, "projection_dim")


def expected_shapes(component: CheckpointComponent, *, pooled: int | None) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight that the component's network has under its config.

    Args:
        component: the component; only its config is used.
        pooled: see :func:`pooled_width`; the UNet's and the ControlNet's conditions contain it.

    Raises:
        CheckpointError: the config is incomplete or asks for what is not supported.

    """
    import torch

    from ...engines.nets.build import network_from_config

    try:
        with torch.device("meta"):
            network = network_from_config(_resolved(component, pooled), torch.float32)
    except KeyError as error:
        raise CheckpointError(f"{component.name}: its config.json has no {error.args[0]!r}") from error
    except (TypeError, ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{component.name}: its config.json describes no such network ({error})") from error
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _resolved(component: CheckpointComponent, pooled: int | None) -> UNetConfig | VAEConfig | TextEncoderConfig:
    if component.name in ("unet", "controlnet"):
        return UNetConfig.from_diffusers(component.config, pooled=pooled)
    if component.name == "vae":
        return VAEConfig.from_diffusers(component.config)
    projected = component.class_name == "CLIPTextModelWithProjection"
    return TextEncoderConfig.from_transformers(component.config, projected=projected, final_norm=True)


def _check_channels(components: _Components) -> None:
    """A UNet takes the VAE's latents, or those, a mask and the masked latents (inpainting)."""
    unet, latents = components["unet"], _number(components["vae"], "latent_channels", 4)
    taken, given = _number(unet, "in_channels", 4), _number(unet, "out_channels", 4)
    if given != latents or taken not in (latents, 2 * latents + 1):
        raise CheckpointError(
            f"the UNet turns {taken} channels into {given}, the VAE has {latents}: neither text-to-image "
            f"({latents} to {latents}) nor inpainting ({2 * latents + 1} to {latents}); other tasks (instructions, "
            "depth, upscaling) are not supported, nor a VAE of another family"
        )


def _check_text_width(components: _Components) -> None:
    unet = components["unet"]
    encoders = {name: _number(c, "hidden_size") for name, c in components.items() if name.startswith("text")}
    width = unet.config.get("cross_attention_dim")
    if width != sum(encoders.values()):
        told = " and ".join(f"{name} {length}" for name, length in encoders.items())
        raise CheckpointError(f"the UNet attends to text of width {width}, the encoders give {told}")


def _number(component: CheckpointComponent, option: str, default: int | None = None) -> int:
    value = component.config.get(option, default)
    if not isinstance(value, int):
        raise CheckpointError(f"{component.name}: its config.json has {option}={value!r}, a number is needed")
    return value
