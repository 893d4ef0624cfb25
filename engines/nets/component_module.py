"""Kind of component + network -> the torch module that is traced, and that the torch engine runs."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..kinds import COMPONENT_KINDS, kind_of
from ..spec import ComponentSpec
from .network_config import NetworkConfig

__all__ = ["ComponentModule", "component_module", "network_from_config"]


def network_from_config(config: NetworkConfig, dtype: torch.dtype) -> nn.Module:
    """Build the network with parameters of ``dtype`` on the current device or fake mode; weights are not loaded."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # fake parameters cannot be converted afterwards
    try:
        network: nn.Module = _named(kind_of(config).module)(config)
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
    where = COMPONENT_KINDS[kind].module
    module = network if where is None else _named(where)(network)
    return ComponentModule(network, module, [tensor.name for tensor in spec.inputs])


def _named(where: str) -> Callable[[Any], Any]:
    """Return a class of this package: ``file:Class``; one of another package has its whole name before the colon."""
    file, _, name = where.partition(":")
    made: Callable[[Any], Any] = getattr(import_module(file if "." in file else f"{__package__}.{file}"), name)
    return made


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
