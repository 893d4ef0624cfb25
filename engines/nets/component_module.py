"""Makes the torch module of a component from its network: the one that is traced, and that the torch engine runs."""

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
        network: the network, whose weights it uses.
        module: called with the inputs by name.
        names: the names of the inputs, in order.

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
    """Import a class: ``file:Class`` of this folder, or ``package.module:Class`` of another one."""
    file, _, name = where.partition(":")
    imported: Callable[[Any], Any] = getattr(import_module(file if "." in file else f"{__package__}.{file}"), name)
    return imported


_LISTS = {"key_values_": "key_values", "residual_": "residuals"}
"""Inputs that a module takes as a list: what their names begin with, and the name of the list."""


def _arguments(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a module's keyword arguments."""
    arguments: dict[str, Any] = {}
    for name, tensor in inputs.items():
        list_name = next((listed for prefix, listed in _LISTS.items() if name.startswith(prefix)), None)
        if list_name is None:
            arguments[name] = tensor
        else:
            arguments.setdefault(list_name, []).append(tensor)
    return arguments
