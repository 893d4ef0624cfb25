"""The denoiser: a whole step, from the solver's state to the solver's next state."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .conditioner import unpack_key_values
from .image_unet import ImageUNet
from .solver_step import next_state
from .unet import UNet

__all__ = ["Denoiser"]


class Denoiser(nn.Module):
    """Gather rows, scale, cast, UNet, cast, mix, update, put back what the mask excludes.

    Args:
        unet: the network.

    """

    def __init__(self, unet: UNet | ImageUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        state: Tensor,
        noise: Tensor,
        row_sample: Tensor,
        timestep: Tensor,
        input_scale: Tensor,
        mix: Tensor,
        rescale: Tensor,
        predict: Tensor,
        clip: Tensor,
        update: Tensor,
        key_values: Sequence[Tensor],
        embedding: Tensor | None = None,
        offset: Tensor | None = None,
        extra: Tensor | None = None,
        mask: Tensor | None = None,
        known: Tensor | None = None,
        blend: Tensor | None = None,
        residuals: Sequence[Tensor] = (),
    ) -> Tensor:
        """Take one step for S samples whose networks run on R rows.

        Args:
            state: float32 [S, K, C, h, w]; ``state[:, 0]`` is the latent, the rest the solver's memory.
            noise: float32 [S, C, h, w], fresh Gaussian noise, or zeros.
            row_sample: int64 [R], which sample a row belongs to.
            timestep: float32 [R].
            input_scale: float32 [S].
            mix: float32 [S, R], how the rows' predictions combine into the samples'.
            rescale: float32 [S, R], all zero, or the guidance rescale at the sample's text row: then the standard
                deviation of the mixed prediction is moved towards that row's (Lin et al., 2023, arXiv:2305.08891, 3.4).
            predict: float32 [S, 2], factors of latent and prediction in the predicted x0.
            clip: float32 [S], largest magnitude of x0; infinity where it is not clipped.
            update: float32 [S, K, K + 3], the solver's matrices, over state, prediction, clipped x0 and noise.
            key_values: see :class:`Conditioner`.
            embedding: see :class:`Conditioner`.
            offset: see :class:`Conditioner`.
            extra: float32 [S, in_channels - C, h, w], what an inpainting UNet sees beside the latent.
            mask: float32 [S, 1, h, w], of an ordinary UNet: 1 is generated, 0 stays as it was.
            known: float32 [S, 2, C, h, w], latents of the original image, and its noise.
            blend: float32 [S, 2], factors of those two at the noise level after this step.
            residuals: see :meth:`UNet.forward`; rows already.

        Returns:
            The next state, float32 [S, K, C, h, w].

        """
        latent = state[:, 0]
        x = latent * input_scale[:, None, None, None]
        if extra is not None:
            x = torch.cat([x, extra], dim=1)
        dtype = self.unet.conv_in.weight.dtype
        optional: dict[str, Any] = {"embedding": embedding, "offset": offset}
        given = {name: tensor.to(dtype) for name, tensor in optional.items() if tensor is not None}
        if residuals:
            given["residuals"] = residuals
        rows = self.unet(
            x.to(dtype),
            timestep,
            unpack_key_values(self.unet, [packed.to(dtype) for packed in key_values]),
            **given,
            rows=(row_sample, (mix != 0).float().argmax(1)),  # the first row of each sample with a weight
        ).float()
        following = next_state(state, rows, noise, mix, predict, clip, update, rescale)
        if mask is None or known is None or blend is None:
            return following
        factors = blend[:, :, None, None, None]
        known_latent = factors[:, 0] * known[:, 0] + factors[:, 1] * known[:, 1]
        latent = (1.0 - mask) * known_latent + mask * following[:, 0]
        return torch.cat([latent[:, None], following[:, 1:]], 1)
