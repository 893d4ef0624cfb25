"""Kind of component + network -> the torch module that is traced, and that the torch engine runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..spec import ComponentSpec
from .conditioner import Conditioner
from .config import UNetConfig
from .controlnet import ControlNet, ControlNetStep, HintEmbedder
from .denoiser import Denoiser
from .text_config import TextEncoderConfig
from .text_encoder import TextEncoder
from .unet import UNet
from .vae import VAE, VAEDecoder, VAEEncoder
from .vae_config import VAEConfig

__all__ = ["ComponentModule", "component_module", "network_from_config"]

NetworkConfig = UNetConfig | VAEConfig | TextEncoderConfig


def network_from_config(config: NetworkConfig, dtype: torch.dtype) -> nn.Module:
    """Build the network with parameters of ``dtype`` on the current device or fake mode; weights are not loaded."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # fake parameters cannot be converted afterwards
    try:
        if isinstance(config, UNetConfig):
            network: nn.Module = ControlNet(config) if config.hint_channels else UNet(config)
        elif isinstance(config, VAEConfig):
            network = VAE(config)
        else:
            network = TextEncoder(config)
    finally:
        torch.set_default_dtype(before)
    return network.eval().requires_grad_(False)


Outputs = Tensor | tuple[Tensor, ...]


class ComponentModule(nn.Module):
    """A component whose forward takes the spec's inputs in the spec's order, and returns a tuple.

    Args:
        network: whose weights it uses.
        module: what is called, with the inputs by name.
        names: of the inputs, in order.

    """

    def __init__(self, network: nn.Module, module: Callable[..., Outputs], names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self._module = (module,)  # in a tuple, so that its parameters are not registered a second time
        self._names = tuple(names)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the component."""
        outputs = self._module[0](**_arguments(dict(zip(self._names, inputs, strict=True))))
        return outputs if isinstance(outputs, tuple) else (outputs,)


def component_module(kind: str, network: nn.Module, spec: ComponentSpec) -> ComponentModule:
    """Wrap a network as the component of that kind."""
    return ComponentModule(network, _MODULES[kind](network), [tensor.name for tensor in spec.inputs])


_LISTS = {"key_values_": "key_values", "residual_": "residuals"}
"""Inputs of which there are several: what their names begin with, and what the list of them is called."""


def _arguments(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a module's keyword arguments."""
    arguments: dict[str, Any] = {}
    for name, tensor in inputs.items():
        several = next((plural for prefix, plural in _LISTS.items() if name.startswith(prefix)), None)
        if several is None:
            arguments[name] = tensor
        else:
            arguments.setdefault(several, []).append(tensor)
    return arguments


_MODULES: dict[str, Callable[[Any], Callable[..., Outputs]]] = {
    "text_encoder": lambda network: network,
    "conditioner": Conditioner,
    "denoiser": Denoiser,
    "controlnet": ControlNetStep,
    "hint": HintEmbedder,
    "vae_decoder": VAEDecoder,
    "vae_encoder": VAEEncoder,
}
