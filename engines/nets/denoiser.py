"""The denoiser: a whole step, from one state of the solver to the next."""

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
    """Scale the latents, repeat them for their rows, run the UNet, apply guidance and update the state.

    For inpainting it then puts back the image outside the mask. The UNet runs in its weights' precision, the rest in
    float32.

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
        """Take one step for S samples with R rows in all.

        Args:
            state: float32 [S, K, C, h, w]; ``state[:, 0]`` is the latent, the rest earlier predictions that the solver
                uses.
            noise: float32 [S, C, h, w], fresh Gaussian noise, or zeros.
            row_sample: int64 [R], the index of the sample that a row belongs to.
            timestep: float32 [R].
            input_scale: float32 [S], factor of the latent before the UNet.
            mix: float32 [S, R], factors of the UNet's outputs in the samples' predictions: guidance as a matrix.
            rescale: float32 [S, R], all zero, or the guidance rescale at the row of the sample's prompt: then the
                standard deviation of the prediction is moved towards that row's (Lin et al., 2023, arXiv:2305.08891,
                3.4).
            predict: float32 [S, 2], factors of latent and prediction in the predicted x0.
            clip: float32 [S], the largest magnitude of x0; infinity if it is not clipped.
            update: float32 [S, K, K + 3], the solver's matrices: factors of the state, the prediction, the clipped x0
                and the noise in the next state.
            key_values: see :class:`Conditioner`.
            embedding: see :class:`Conditioner`.
            offset: see :class:`Conditioner`.
            extra: float32 [S, in_channels - C, h, w], the further channels of an inpainting UNet's input.
            mask: float32 [S, 1, h, w], for inpainting with an ordinary UNet: 1 is generated, 0 is the original image.
            known: float32 [S, 2, C, h, w], latents of the original image, and noise for them.
            blend: float32 [S, 2], factors of those two at the noise level after this step.
            residuals: of ControlNets, for each row, see :meth:`UNet.forward`.

        Returns:
            The next state, float32 [S, K, C, h, w].

        """
        latent = state[:, 0]
        x = latent * input_scale[:, None, None, None]
        if extra is not None:
            x = torch.cat([x, extra], dim=1)
        dtype = self.unet.conv_in.weight.dtype
        optional: dict[str, Any] = {"embedding": embedding, "offset": offset}
        arguments = {name: tensor.to(dtype) for name, tensor in optional.items() if tensor is not None}
        if residuals:
            arguments["residuals"] = residuals
        outputs = self.unet(
            x.to(dtype),
            timestep,
            unpack_key_values(self.unet, [packed.to(dtype) for packed in key_values]),
            **arguments,
            rows=(row_sample, (mix != 0).float().argmax(1)),  # the sample of each row, and one row of each sample
        ).float()
        updated = next_state(state, outputs, noise, mix, predict, clip, update, rescale)
        if mask is None or known is None or blend is None:
            return updated
        factors = blend[:, :, None, None, None]
        known_latent = factors[:, 0] * known[:, 0] + factors[:, 1] * known[:, 1]
        latent = (1.0 - mask) * known_latent + mask * updated[:, 0]
        return torch.cat([latent[:, None], updated[:, 1:]], 1)
