"""What follows the UNet in a step, in float32: guidance, the predicted x0, and the solver's matrices."""

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
    """Add the network's outputs up to the samples' predictions, and update the state.

    Args:
        state: [S, K, C, h, w]; ``state[:, 0]`` is the latent, the rest earlier predictions that the solver uses.
        rows: the network's outputs, [R, C, h, w].
        noise: [S, C, h, w], fresh Gaussian noise, or zeros.
        mix: [S, R], factors of the network's outputs in the samples' predictions: guidance as a matrix.
        predict: [S, 2], factors of latent and prediction in the predicted x0.
        clip: [S], the largest magnitude of x0; infinity if it is not clipped.
        update: [S, K, K + 3], the solver's matrices: factors of the state, the prediction, the clipped x0 and the noise
            in the next state.
        rescale: [S, R], all zero, or the guidance rescale at the row of the sample's prompt: then the standard
            deviation of the prediction is moved towards that row's (Lin et al., 2023, arXiv:2305.08891, 3.4). None
            rescales nothing.

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
    of weight 0 counts as zero even if it is not finite, so that one sample's NaN cannot reach another sample.
    """
    return torch.where(weights == 0, torch.zeros_like(weights), weights * terms).sum(dim)


def _deviation(x: Tensor) -> Tensor:
    """Standard deviation over a sample, [S, C, h, w] -> [S]; two passes, as squares alone lose digits.

    Divided by n, not n - 1: only ratios of it are used.
    """
    centred = x - x.mean((1, 2, 3), keepdim=True)
    return torch.sqrt((centred * centred).mean((1, 2, 3)))
