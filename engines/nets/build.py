"""Component name + configs -> the torch module that is traced, and that the torch engine runs.

The module's forward takes its tensors in the order of the component's spec.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..components import prepared
from .conditioner import Conditioner
from .config import UNetConfig
from .controlnet import ControlNet, ControlNetStep, HintEmbedder
from .denoiser import Denoiser
from .text_config import TextEncoderConfig
from .text_encoder import TextEncoder
from .unet import UNet
from .vae import VAE, VAEDecoder, VAEEncoder
from .vae_config import VAEConfig

__all__ = ["Positional", "network_from_config", "positional"]

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


class Positional(nn.Module):
    """A component whose forward takes the spec's inputs in the spec's order, and returns a tuple."""

    def __init__(self, network: nn.Module, call: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.network = network
        self._call = (call,)  # in a tuple, so that its parameters are not registered a second time

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the component."""
        outputs = self._call[0](*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def positional(kind: str, network: nn.Module) -> Positional:
    """Wrap a network as the component of that kind."""
    return Positional(network, _CALLS[kind](network))


def _conditioner(network: Any) -> Callable[..., tuple[Tensor, ...]]:
    config: UNetConfig = network.config
    module = Conditioner(network)

    def call(hidden: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        given = iter(rest)
        pooled, time_ids = (next(given), next(given)) if config.time_ids else (None, None)
        return module(hidden, pooled, time_ids, next(given) if config.guidance_width else None)

    return call


def _prepared(config: UNetConfig, rest: list[Tensor], *, up: bool) -> dict[str, Any]:
    """Take the conditioner's outputs off the front of ``rest``."""
    given: dict[str, Any] = {"key_values": []}
    for tensor in prepared(config, "float32", up=up):
        if tensor.name.startswith("key_values"):
            given["key_values"].append(rest.pop(0))
        else:
            given[tensor.name] = rest.pop(0)
    return given


def _denoiser(network: Any) -> Callable[..., Tensor]:
    config: UNetConfig = network.config
    module = Denoiser(network)

    def call(*inputs: Tensor) -> Tensor:
        step, rest = inputs[:8], list(inputs[8:])
        given: Mapping[str, Any] = _prepared(config, rest, up=True)
        beside = ("extra",) if config.in_channels > config.out_channels else ("mask", "known", "blend")
        return module(*step, **given, **{name: rest.pop(0) for name in beside}, residuals=rest)

    return call


def _controlnet(network: Any) -> Callable[..., tuple[Tensor, ...]]:
    module = ControlNetStep(network)

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        step, rest = inputs[:6], list(inputs[6:])
        given = _prepared(network.config, rest, up=False)
        return module(*step, given["key_values"], given.get("embedding"), rest)

    return call


_CALLS: dict[str, Callable[[Any], Callable[..., Tensor | tuple[Tensor, ...]]]] = {
    "text_encoder": lambda network: network,
    "conditioner": _conditioner,
    "denoiser": _denoiser,
    "controlnet": _controlnet,
    "hint": HintEmbedder,
    "vae_decoder": VAEDecoder,
    "vae_encoder": VAEEncoder,
}
