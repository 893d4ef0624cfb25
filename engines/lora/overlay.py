"""LoRAs over the weights of a bundle: what engines are opened with in their place."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..files.floats import FLOATS, stored_from
from ..files.stored_file import StoredFile, open_stored
from ..weights import ComputedOverlay, changed_tensors
from .file import Lora
from .merge import Merge, merges, rounded
from .names import Networks
from .strength import Strengths

__all__ = ["networks_of", "with_loras"]

_FORMAT = "2"
"""Raised when the same files would make other weights."""


def networks_of(bundle: Bundle) -> Networks:
    """Return what LoRAs may change in a bundle: UNet and text encoders."""
    return {
        name: {
            key: t.shape for key, t in open_stored(bundle.file(network.weights)).tensors.items() if t.dtype in FLOATS
        }
        for name, network in bundle.manifest.networks.items()
        if name == "unet" or name in bundle.text_encoders
    }


def with_loras(bundle: Bundle, loras: Sequence[tuple[Lora, Strengths]], *, check: bool = False) -> Bundle:
    """Return a bundle with LoRAs over the weights that were exported, and nothing of what it had over them before.

    Engines ask for the weights, one by one; nothing holds them.

    Args:
        bundle: the bundle.
        loras: each with its strengths.
        check: compute all of them now as well, so that none fails when engines are opened later.

    Raises:
        LoraError: with ``check``: a weight becomes too large for its type.
        DamagedBundleError: the bundle's weights are not those that were exported.

    """
    by_network: dict[str, dict[str, Merge]] = {}
    for merge in merges(loras):
        by_network.setdefault(merge.network, {})[merge.name] = merge
    overlays = {}
    for network, own in by_network.items():
        recipe = "\n".join(
            [
                _FORMAT,
                *sorted(f"{lora.sha256} {s.of_network(network)}" for lora, s in loras if network in lora.networks),
            ]
        )
        stored = open_stored(bundle.checked_weights(network), mapped=True)
        overlays[network] = _overlay(hashlib.sha256(recipe.encode()).hexdigest(), stored, own)
        for _ in changed_tensors(overlays[network], own) if check else ():
            pass
    return bundle.with_changes(overlays)


def _overlay(recipe: str, stored: StoredFile, own: dict[str, Merge]) -> ComputedOverlay:
    def compute(name: str) -> NDArray[np.generic]:
        tensor = stored.tensors[name]
        values = own[name].applied(stored.values(tensor))
        return np.ascontiguousarray(rounded(own[name], values, lambda v: stored_from(v, tensor.dtype), tensor.dtype))

    return ComputedOverlay(recipe, own, compute)
