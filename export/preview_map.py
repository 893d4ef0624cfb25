"""Fits the map of previews to a bundle's VAE, by least squares on latents that it decodes itself."""

import numpy as np
import torch
from numpy.typing import NDArray

from ..engines.bundle.bundle import Bundle
from ..engines.bundle.manifest import PreviewMap
from ..engines.eager.load_network import load_network
from ..engines.nets.component_module import component_module
from ..engines.preview_map import features

__all__ = ["fit_preview", "fitted"]

F32 = NDArray[np.float32]

_SIDE = 16
"""Height and width of a latent that is decoded, in its pixels: small enough that no VAE takes a second for it."""
_LATENTS = 6
_SEED = 0
_RIDGE = 1e-3
_HELD_OUT = 0.25
_DECODER = "vae_decoder"


def fit_preview(bundle: Bundle) -> PreviewMap:
    """Fit the map; the VAE's decoder is loaded in torch, in float32, for it."""
    component = bundle.component(_DECODER)
    spec = next(iter(component.graphs.values())).spec
    network = load_network(bundle, component.network, "fp32", "cpu")
    decoder = component_module(component.kind, network, spec)
    channels = spec.input("latent").shape[1]
    rng = np.random.default_rng(_SEED)
    pairs = [_pair(decoder, int(channels), rng) for _ in range(_LATENTS)]
    colours, explained = fitted(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
    return PreviewMap(colours=[(float(r), float(g), float(b)) for r, g, b in colours], explained=explained)


def _pair(decoder: torch.nn.Module, channels: int, rng: np.random.Generator) -> tuple[F32, F32]:
    """Return features of a latent's pixels, and the mean colours that they are decoded to."""
    # Smooth, as latents of images are: large areas, with some noise over them.
    coarse = rng.standard_normal((channels, _SIDE // 4, _SIDE // 4)).repeat(4, 1).repeat(4, 2)
    latent = (0.9 * coarse + 0.4 * rng.standard_normal((channels, _SIDE, _SIDE))).astype(np.float32)
    with torch.inference_mode():
        pixels = decoder(torch.from_numpy(latent[None]))[0][0].numpy()  # [H, W, 3]
    factor = len(pixels) // _SIDE
    blocks = pixels.reshape(_SIDE, factor, _SIDE, factor, 3).mean((1, 3))
    return features(latent), blocks.reshape(-1, 3)


def fitted(x: F32, colours: F32) -> tuple[F32, float]:
    """Fit colours ``[N, 3]`` to features ``[N, C + 1]``, of which the last is 1, by least squares.

    Returns:
        The map ``[C + 1, 3]``, and the share of the colours' variance that it explains on a quarter of the rows, which
        the fit has not seen.

    """
    unseen = np.random.default_rng(_SEED).random(len(x)) < _HELD_OUT
    seen, truth = x[~unseen].astype(np.float64), colours[~unseen].astype(np.float64)
    ridge = _RIDGE * len(seen) * np.diag([*[1.0] * (x.shape[1] - 1), 0.0])  # the mean colour is free
    linear = np.linalg.solve(seen.T @ seen + ridge, seen.T @ truth)
    rest = np.square(x[unseen] @ linear - colours[unseen]).sum()
    spread = np.square(colours[unseen] - truth.mean(0)).sum()
    return np.asarray(linear, np.float32), float(1 - rest / max(spread, 1e-12))
