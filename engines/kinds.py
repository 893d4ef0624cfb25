"""The kinds of networks there are, and the components that each is made into: read by export, engines and checks.

Adding a kind of network adds a record here, with the torch modules that it names; those are imported only where torch
runs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import component_specs as shapes
from .nets.config import UNetConfig
from .nets.image_encoder_config import ImageEncoderConfig
from .nets.movq_config import MoVQConfig
from .nets.prior_config import PriorConfig
from .nets.safety_checker_config import SafetyCheckerConfig
from .nets.text_config import TextEncoderConfig
from .nets.vae_config import VAEConfig
from .spec import ComponentSpec

__all__ = ["COMPONENT_KINDS", "IO_DTYPES", "NETWORK_KINDS", "ComponentKind", "NetworkKind", "kind_of"]

IO_DTYPES = {"fp32": "float32", "bf16": "float32", "fp16": "float16"}
"""Types of the tensors that components pass to each other, by precision: numpy has no bfloat16."""


@dataclass(frozen=True, kw_only=True)
class ComponentKind:
    """What a network, or a part of one, is compiled as.

    Attributes:
        name: in manifests.
        spec: its shapes.
        module: the torch module that is traced, ``file:Class`` in ``engines/nets``; made of the network, called with
            the inputs by name. None where it is the network itself.

    """

    name: str
    spec: Callable[[shapes.ShapeSource[Any]], ComponentSpec]
    module: str | None


@dataclass(frozen=True, kw_only=True)
class NetworkKind:
    """A kind of network.

    Attributes:
        name: what it is.
        config: the class of its configuration.
        matches: whether a configuration of that class is of this kind.
        module: the torch module, ``file:Class`` in ``engines/nets``, made of the configuration.
        components: what it is made into, by name; ``{network}`` stands for the network's name.

    """

    name: str
    config: type
    matches: Callable[[Any], bool] = lambda config: True
    module: str
    components: Mapping[str, ComponentKind]

    def components_of(self, network: str) -> Iterator[tuple[str, ComponentKind]]:
        """Yield names and kinds of the components that a network of this kind is made into."""
        for name, kind in self.components.items():
            yield name.format(network=network), kind


_TEXT_ENCODER = ComponentKind(
    name="text_encoder",
    spec=shapes.text_encoder_spec,
    module=None,
)
_CONDITIONER = ComponentKind(
    name="conditioner",
    spec=shapes.conditioner_spec,
    module="conditioner:Conditioner",
)
_DENOISER = ComponentKind(
    name="denoiser",
    spec=shapes.denoiser_spec,
    module="denoiser:Denoiser",
)
_HINT = ComponentKind(
    name="hint",
    spec=shapes.hint_spec,
    module="controlnet:HintEmbedder",
)
_CONTROLNET = ComponentKind(
    name="controlnet",
    spec=shapes.controlnet_spec,
    module="controlnet:ControlNetStep",
)
_IMAGE_CONDITIONER = ComponentKind(
    name="image_conditioner",
    spec=shapes.conditioner_spec,
    module="image_unet:ImageConditioner",
)
_HINT_LATENTS = ComponentKind(
    name="hint_latents",
    spec=shapes.hint_latents_spec,
    module="image_unet:HintLatents",
)
_IMAGE_ENCODER = ComponentKind(
    name="image_encoder",
    spec=shapes.image_encoder_spec,
    module=None,
)
_SAFETY_CHECKER = ComponentKind(
    name="safety_checker",
    spec=shapes.safety_checker_spec,
    module=None,
)
_PRIOR_CONDITIONER = ComponentKind(
    name="prior_conditioner",
    spec=shapes.prior_conditioner_spec,
    module="prior:PriorConditioner",
)
_PRIOR = ComponentKind(
    name="prior",
    spec=shapes.prior_spec,
    module="prior:PriorStep",
)
_PRIOR_DECODER = ComponentKind(
    name="prior_decoder",
    spec=shapes.prior_decoder_spec,
    module="prior:PriorDecoder",
)
_VAE_DECODER = ComponentKind(
    name="vae_decoder",
    spec=shapes.vae_decoder_spec,
    module="vae:VAEDecoder",
)
_VAE_ENCODER = ComponentKind(
    name="vae_encoder",
    spec=shapes.vae_encoder_spec,
    module="vae:VAEEncoder",
)
_MOVQ_DECODER = ComponentKind(
    name="movq_decoder",
    spec=shapes.movq_decoder_spec,
    module="movq:MoVQDecoder",
)
_MOVQ_ENCODER = ComponentKind(
    name="movq_encoder",
    spec=shapes.movq_encoder_spec,
    module="movq:MoVQEncoder",
)

NETWORK_KINDS: list[NetworkKind] = [
    NetworkKind(
        name="text encoder",
        config=TextEncoderConfig,
        module="text_encoder:TextEncoder",
        components={"{network}": _TEXT_ENCODER},
    ),
    NetworkKind(
        name="VAE",
        config=VAEConfig,
        module="vae:VAE",
        components={"vae_decoder": _VAE_DECODER, "vae_encoder": _VAE_ENCODER},
    ),
    NetworkKind(
        name="ControlNet",
        config=UNetConfig,
        matches=lambda config: bool(config.hint_channels),
        module="controlnet:ControlNet",
        components={"{network}_hint": _HINT, "{network}_conditioner": _CONDITIONER, "{network}": _CONTROLNET},
    ),
    NetworkKind(
        name="UNet",
        config=UNetConfig,
        matches=lambda config: not config.hint_channels and not config.image,
        module="unet:UNet",
        components={"conditioner": _CONDITIONER, "denoiser": _DENOISER},
    ),
    NetworkKind(
        name="UNet with an image embedding",
        config=UNetConfig,
        matches=lambda config: bool(config.image) and not config.image_hint,
        module="image_unet:ImageUNet",
        components={"conditioner": _IMAGE_CONDITIONER, "denoiser": _DENOISER},
    ),
    NetworkKind(
        name="UNet with an image embedding and a hint",
        config=UNetConfig,
        matches=lambda config: bool(config.image) and config.image_hint,
        module="image_unet:ImageUNet",
        components={"hint": _HINT_LATENTS, "conditioner": _IMAGE_CONDITIONER, "denoiser": _DENOISER},
    ),
    NetworkKind(
        name="image encoder",
        config=ImageEncoderConfig,
        module="image_encoder:ImageEncoder",
        components={"{network}": _IMAGE_ENCODER},
    ),
    NetworkKind(
        name="safety checker",
        config=SafetyCheckerConfig,
        module="safety_checker:SafetyChecker",
        components={"{network}": _SAFETY_CHECKER},
    ),
    NetworkKind(
        name="prior",
        config=PriorConfig,
        module="prior:Prior",
        components={
            "{network}_conditioner": _PRIOR_CONDITIONER,
            "{network}": _PRIOR,
            "{network}_decoder": _PRIOR_DECODER,
        },
    ),
    NetworkKind(
        name="MoVQ",
        config=MoVQConfig,
        module="movq:MoVQ",
        components={"vae_decoder": _MOVQ_DECODER, "vae_encoder": _MOVQ_ENCODER},
    ),
]

COMPONENT_KINDS: dict[str, ComponentKind] = {
    component.name: component for network in NETWORK_KINDS for component in network.components.values()
}
"""By name."""


def kind_of(config: object) -> NetworkKind:
    """Return the kind of the network that a configuration is of.

    Raises:
        LookupError: there is none.

    """
    for kind in NETWORK_KINDS:
        if isinstance(config, kind.config) and kind.matches(config):
            return kind
    raise LookupError(f"no kind of network has a configuration like {type(config).__name__}")
