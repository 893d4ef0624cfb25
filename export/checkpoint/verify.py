"""Checks that a checkpoint fits together: every weight with its network, and the networks with each other."""

from collections.abc import Mapping

from ...engines.errors import CheckpointError, nearest
from ...engines.nets.network_config import NetworkConfig, network_config
from ...engines.scheduler_fixes import SCHEDULER_CLASSES
from .component import CheckpointComponent

__all__ = ["check_components", "check_scheduler", "expected_shapes"]

_Components = Mapping[str, CheckpointComponent]
_FLOATS = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")
_DEPTHS = (
    "layers_per_block",
    "num_hidden_layers",
    "reverse_transformer_layers_per_block",
    "transformer_layers_per_block",
)
_CONDITIONS = "projection_class_embeddings_input_dim"


def check_components(components: _Components) -> None:
    """Check configs, names and shapes, from the headers alone.

    Raises:
        CheckpointError: a config or a weight does not fit; the message names it and its file.

    """
    if "unet" in components:
        _check_sample_size(components["unet"])
        if "prior" in components:
            _check_embeddings(components)
            _check_decoder_channels(components)
        else:
            _check_channels(components)
            _check_text_width(components)
            _check_conditions(components)
    for component in components.values():
        _check_depth(component)
        component.check(expected_shapes(component))
        _check_types(component)


def check_scheduler(config: Mapping[str, object]) -> None:
    """Make sure that there is such a scheduler.

    Raises:
        CheckpointError: the config names none, or one that is not known.

    """
    name = config.get("_class_name")
    if name not in SCHEDULER_CLASSES:
        close = nearest(name, SCHEDULER_CLASSES) if isinstance(name, str) else ""
        raise CheckpointError(
            f"the checkpoint's scheduler is {name!r}, which is not known{close} (known are "
            f"{', '.join(SCHEDULER_CLASSES)}): write one of those into its scheduler_config.json"
        )


def _check_sample_size(unet: CheckpointComponent) -> None:
    size = unet.config.get("sample_size")
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    if size is not None and not all(type(side) is int and side > 0 for side in sides):
        raise CheckpointError(
            f"unet: its config.json has sample_size={size!r}, a number of latents or two ([height, width]) are needed"
        )


def _check_depth(component: CheckpointComponent) -> None:
    """No network has more layers than its weights have tensors; a much larger number would take forever to build."""
    for option in _DEPTHS:
        value = component.config.get(option)
        numbers = [value]
        for number in numbers:
            numbers += number if isinstance(number, list) else []
        if any(isinstance(number, (int, float)) and number > len(component.tensors) for number in numbers):
            raise CheckpointError(
                f"{component.name}: its config.json has {option}={value}, its weights are {len(component.tensors)} "
                "tensors"
            )


def _check_types(component: CheckpointComponent) -> None:
    for name, tensor in component.tensors.items():
        if tensor.dtype not in _FLOATS:
            raise CheckpointError(
                f"{component.name}: {name!r} of {tensor.file} is of type {tensor.dtype}; weights are "
                f"{', '.join(_FLOATS)}"
            )


def expected_shapes(component: CheckpointComponent) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight that the component's network has under its config.

    Args:
        component: the component; of its parts only name, class and config are used.

    Raises:
        CheckpointError: the config is incomplete or asks for what is not supported.

    """
    import torch

    from ...engines.nets.component_module import network_from_config

    try:
        with torch.device("meta"):
            network = network_from_config(_resolved(component), torch.float32)
    except KeyError as error:
        raise CheckpointError(f"{component.name}: its config.json has no {error.args[0]!r}") from error
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{component.name}: its config.json describes no such network ({error})") from error
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _resolved(component: CheckpointComponent) -> NetworkConfig:
    pooled = None
    if component.config.get("addition_embed_type") == "text_time":
        # Pooled text and sizes enter one layer side by side: any split that adds up gives the same shapes.
        pooled = _number(component, _CONDITIONS) % max(_number(component, "addition_time_embed_dim"), 1)
    return network_config(component.class_name, component.config, pooled=pooled, final_norm=True)


def _check_channels(components: _Components) -> None:
    """A UNet takes the VAE's latents, or those, a mask and the masked latents (inpainting)."""
    unet, latents = components["unet"], _number(components["vae"], "latent_channels", 4)
    inputs, outputs = _number(unet, "in_channels", 4), _number(unet, "out_channels", 4)
    if outputs != latents or inputs not in (latents, 2 * latents + 1):
        raise CheckpointError(
            f"the UNet turns {inputs} channels into {outputs}, the VAE has {latents}: neither text-to-image "
            f"({latents} to {latents}) nor inpainting ({2 * latents + 1} to {latents}); other tasks (instructions, "
            "depth, upscaling) are not supported, nor a VAE of another family"
        )


def _check_decoder_channels(components: _Components) -> None:
    """A decoder returns a variance beside its prediction, and takes latents alone, or with a hint or masked image."""
    unet, latents = components["unet"], _number(components["movq"], "latent_channels", 3)
    inputs, outputs = _number(unet, "in_channels", 4), _number(unet, "out_channels", 4)
    hint = unet.config.get("addition_embed_type") == "image_hint"
    right = [2 * latents] if hint else [latents, 2 * latents + 1]
    if outputs != 2 * latents or inputs not in right:
        raise CheckpointError(
            f"the UNet turns {inputs} channels into {outputs}, the MoVQ has {latents}: "
            f"{' or '.join(map(str, right))} to {2 * latents} were expected"
        )


def _check_embeddings(components: _Components) -> None:
    """All networks around a prior have embeddings of one width."""
    unet, prior = components["unet"], components["prior"]
    text, image = components["text_encoder"], components["image_encoder"]
    widths = {
        "the prior": _number(prior, "embedding_dim", 768),
        "the decoder": _number(unet, "encoder_hid_dim"),
        "the text encoder (its tokens)": _number(text, "hidden_size"),
        "the text encoder (as a whole)": _number(text, "projection_dim", 512),
        "the image encoder": _number(image, "projection_dim", 512),
    }
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{what} {width}" for what, width in widths.items())
        raise CheckpointError(f"prior and decoder do not fit: their embeddings have different widths ({listed})")
    tokens, length = _number(prior, "num_embeddings", 77), _number(text, "max_position_embeddings", 77)
    if tokens != length:
        raise CheckpointError(f"the prior takes {tokens} tokens of text, the text encoder has {length}")


def _check_text_width(components: _Components) -> None:
    unet = components["unet"]
    encoders = {name: _number(c, "hidden_size") for name, c in components.items() if name.startswith("text")}
    width = unet.config.get("cross_attention_dim")
    if isinstance(width, list) and len(set(map(str, width))) == 1:  # one for each level
        width = width[0]
    if width != sum(encoders.values()):
        widths = " and ".join(f"{name} {length}" for name, length in encoders.items())
        raise CheckpointError(f"the UNet attends to text of width {width}, the encoders give {widths}")


def _check_conditions(components: _Components) -> None:
    """SDXL's UNets take the pooled text of the second encoder and some sizes, each embedded."""
    unet = components["unet"]
    if unet.config.get("addition_embed_type") != "text_time":
        return
    encoder = components.get("text_encoder_2")
    if encoder is None or encoder.class_name != "CLIPTextModelWithProjection":
        raise CheckpointError(
            "the UNet takes pooled text, but no text_encoder_2 (CLIPTextModelWithProjection) gives it"
        )
    pooled, width = _number(encoder, "projection_dim"), _number(unet, "addition_time_embed_dim")
    sizes, rest = divmod(_number(unet, _CONDITIONS) - pooled, max(width, 1))
    if rest or sizes < 1:
        raise CheckpointError(
            f"the UNet's {_CONDITIONS} is {unet.config[_CONDITIONS]}, which is not the pooled text's {pooled} and a "
            f"multiple of {width}"
        )


def _number(component: CheckpointComponent, option: str, default: int | None = None) -> int:
    value = component.config.get(option, default)
    if not isinstance(value, int):
        raise CheckpointError(f"{component.name}: its config.json has {option}={value!r}, a number is needed")
    return value
