"""A bundle's network as a torch module with its weights, shared by the components that are made of it."""

import threading
import weakref
from typing import Any

from ..bundle.bundle import Bundle
from ..errors import DamagedBundleError
from ..weights import changed_tensors
from . import kernels

__all__ = ["DTYPES", "fuse_projections", "load_network"]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""torch's name of each precision."""

_LOADING = threading.Lock()
_NETWORKS: dict[tuple[str, str, str, str], "weakref.ref[Any]"] = {}


def load_network(bundle: Bundle, name: str, precision: str, device: str) -> Any:
    """Load a network; components of one network share it while any of them is open.

    Weights are read directly to the device; none stay on the host if that is a GPU. In half precision, convolutions
    work in ``channels_last``, the layout of tensor cores and of oneDNN.

    Args:
        bundle: the bundle.
        name: of the network.
        precision: of the network.
        device: a torch device.

    Raises:
        DamagedBundleError: the weights are not those that were exported, or do not fit the network.

    """
    key = (str(bundle.path), bundle.weights(name).identity, precision, device)
    with _LOADING:  # components that are opened at the same time may share a network
        reference = _NETWORKS.get(key)
        network = None if reference is None else reference()
        if network is None:
            network = _read(bundle, name, precision, device)
            _NETWORKS[key] = weakref.ref(network)
        return network


def _read(bundle: Bundle, name: str, precision: str, device: str) -> Any:
    import torch
    from safetensors.torch import load_file

    from ..nets.component_module import network_from_config

    record = bundle.manifest.networks[name]
    dtype = getattr(torch, DTYPES[precision])
    with torch.device("meta"):
        network: Any = network_from_config(bundle.config(name), dtype)
    weight_set = bundle.weights(name)
    weights = load_file(weight_set.file, device=device)
    for key, array in changed_tensors(weight_set.changes, weights):
        tensor = torch.from_numpy(array)
        weights[key] = tensor.view(weights[key].dtype).to(device)
    try:
        network.load_state_dict({k: w.to(dtype) for k, w in weights.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise DamagedBundleError(f"{record.weights} does not fit the config of {name}: {error}") from error
    network.requires_grad_(False)
    if precision != "fp32":
        network.to(memory_format=torch.channels_last)
    if device != "cpu":
        fuse_projections(network)
        if precision != "fp32" and kernels.unavailable() is None:
            kernels.use_kernels(network)
    return network


def fuse_projections(network: Any) -> None:
    """Fuse the projections to queries, keys and values of each self-attention into one product."""
    from ..nets.attention import TransformerBlock
    from ..nets.vae import PixelAttention

    for module in network.modules():
        if isinstance(module, TransformerBlock):
            module.attn1.fuse()
        elif isinstance(module, PixelAttention):
            module.fuse()
