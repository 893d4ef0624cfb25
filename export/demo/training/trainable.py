"""The library's own networks, in the form that training calls them: inputs to outputs, gradients and all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....engines.nets.conditioner import Conditioner, unpack_key_values
from ....engines.nets.config import UNetConfig
from ....engines.nets.unet import UNet
from ....engines.nets.vae import VAE
from ....engines.nets.vae_config import VAEConfig

__all__ = ["Code", "Drawn", "TrainableUNet", "TrainableVAE"]


@dataclass(frozen=True)
class Drawn:
    """What a network returns."""

    sample: Tensor


@dataclass(frozen=True)
class Code:
    """The encoder's Gaussian; all [n, 4, h, w]."""

    mean: Tensor
    logvar: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviation."""
        return torch.exp(0.5 * self.logvar)

    @property
    def var(self) -> Tensor:
        """Variance."""
        return torch.exp(self.logvar)

    def sample(self) -> Tensor:
        """Draw from it, with torch's global generator."""
        return self.mean + self.std * torch.randn_like(self.mean)


@dataclass(frozen=True)
class Encoded:
    """What the encoder returns."""

    latent_dist: Code


class TrainableUNet(UNet):
    """The UNet with its conditioner in front."""

    def __init__(self, config: Mapping[str, Any], *, pooled: int) -> None:
        super().__init__(UNetConfig.from_diffusers(config, pooled=pooled))

    def forward(  # type: ignore[override]  # the runtime calls the two halves apart
        self, noisy: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: Mapping[str, Tensor]
    ) -> Drawn:
        """Return the prediction for latents [n, 4, h, w] at time steps [n].

        Args:
            noisy: scaled latents.
            timestep: what the network is told.
            encoder_hidden_states: text [n, T, D].
            added_cond_kwargs: ``text_embeds`` [n, P] and ``time_ids`` [n, 6].

        """
        conditions = added_cond_kwargs["text_embeds"], added_cond_kwargs["time_ids"].float()
        *packed, embedding = Conditioner(self)(encoder_hidden_states, *conditions)
        return Drawn(super().forward(noisy, timestep, unpack_key_values(self, packed), embedding=embedding))


class TrainableVAE(VAE):
    """The autoencoder, half by half."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(VAEConfig.from_diffusers(config))

    def encode(self, pixels: Tensor) -> Encoded:
        """Pixels -1 to 1, [n, 3, H, W] -> the code, not scaled."""
        moments = self.encoder(pixels)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, logvar = moments.chunk(2, dim=1)
        return Encoded(Code(mean, logvar.clamp(-30.0, 20.0)))

    def decode(self, code: Tensor) -> Drawn:
        """Return pixels [n, 3, H, W] of a code [n, 4, h, w], not scaled."""
        return Drawn(self.decoder(code if self.post_quant_conv is None else self.post_quant_conv(code)))
