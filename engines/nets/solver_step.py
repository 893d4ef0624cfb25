"""The solver's part of a step: guidance, the predicted x0, the solver's matrices; in float32."""

import torch
from torch import Tensor

__all__ = ["next_state"]


def next_state(
    state: Tensor,
    rows: Tensor,
    noise: Tensor,
    mix: Tensor,
    predict: Tensor,
    clip: Tensor,
    update: Tensor,
    rescale: Tensor | None = None,
) -> Tensor:
    """Mix the network's outputs of the rows, and update the state.

    Args:
        state: [S, K, C, h, w]; ``state[:, 0]`` is the latent, the rest the solver's memory.
        rows: the network's outputs, [R, C, h, w].
        noise: [S, C, h, w], fresh Gaussian noise, or zeros.
        mix: [S, R], how the rows' predictions combine into the samples'.
        predict: [S, 2], factors of latent and prediction in the predicted x0.
        clip: [S], largest magnitude of x0; infinity where it is not clipped.
        update: [S, K, K + 3], the solver's matrices, over state, prediction, clipped x0 and noise.
        rescale: [S, R], all zero, or the guidance rescale at the sample's text row: then the standard deviation of
            the mixed prediction is moved towards that row's (Lin et al., 2023, arXiv:2305.08891, 3.4). None leaves it
            out.

    Returns:
        The next state, [S, K, C, h, w].

    """
    latent = state[:, 0]
    prediction = _weighted_sum(mix[:, :, None, None, None], rows[None], 1)
    if rescale is not None:
        reference = _weighted_sum(rescale[:, :, None, None, None], rows[None], 1)
        deviation = torch.clamp(_deviation(prediction), min=1e-12)
        share = 1.0 - rescale.sum(1) + _deviation(reference) / deviation
        prediction = prediction * share[:, None, None, None]
    predicted = _weighted_sum(predict[:, :, None, None, None], torch.stack([latent, prediction], 1), 1)
    bound = clip[:, None, None, None]
    predicted = torch.maximum(torch.minimum(predicted, bound), -bound)
    terms = torch.cat([state, prediction[:, None], predicted[:, None], noise[:, None]], 1)
    return _weighted_sum(update[:, :, :, None, None, None], terms[:, None], 2)


def _weighted_sum(weights: Tensor, terms: Tensor, dim: int) -> Tensor:
    """Sum ``weights * terms`` over ``dim``, skipping terms of weight 0.

    Multiply and sum, not a matrix product: an engine that lowers products to bfloat16 keeps this in float32. A term
    of weight 0 is left out even if it is not finite, so that one request's NaN cannot reach another's sample.
    """
    return torch.where(weights == 0, torch.zeros_like(weights), weights * terms).sum(dim)


def _deviation(x: Tensor) -> Tensor:
    """Standard deviation over a sample, [S, C, h, w] -> [S]; two passes, as squares alone lose digits.

    Divided by n, not n - 1: only ratios of it are used.
    """
    centred = x - x.mean((1, 2, 3), keepdim=True)
    return torch.sqrt((centred * centred).mean((1, 2, 3)))
