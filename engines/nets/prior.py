"""The prior of unCLIP (Ramesh et al., 2022, arXiv:2204.06125): denoises the embedding of an image.

Parameter names are those of diffusers' ``PriorTransformer``. Its tokens are, in order: those of the text, the text as a
whole, the time, the noisy embedding and a learned one, which becomes the prediction. A token sees itself and the ones
before it, so that nothing of a step reaches the text's tokens: their keys and values are computed once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import FeedForward
from .layers import timestep_sinusoid
from .prior_config import PriorConfig
from .solver_step import next_state
from .unet import TwoLinear

__all__ = ["Prior", "PriorConditioner", "PriorDecoder", "PriorStep"]

_HIDDEN = -10000.0
"""What hides a token from another one, as diffusers has it: its softmax is exactly zero."""


class Attention(nn.Module):
    """Multi-head attention to tokens whose keys and values may come from before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """[R, T, width], keys and values [R, N, width], what is added to the scores [R, 1, T, N] -> [R, T, width]."""
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(x), key, value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and feed-forward, each after a layer norm and with a residual."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attn1 = Attention(config.width, config.heads)
        self.norm3 = nn.LayerNorm(config.width)
        self.ff = FeedForward(config.width, gated=False)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Those of tokens [R, T, width], each [R, T, width]."""
        y = self.norm1(x)
        return self.attn1.to_k(y), self.attn1.to_v(y)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """[R, T, width] -> [R, T, width]; see :meth:`Attention.forward`."""
        x = x + self.attn1(self.norm1(x), key, value, bias)
        return x + self.ff(self.norm3(x))


class Prior(nn.Module):
    """The network; its parts are run by :class:`PriorConditioner`, :class:`PriorStep` and :class:`PriorDecoder`."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width, embedding = config.width, config.embedding
        self.time_embedding = TwoLinear(width, config.time, width_out=width)
        self.proj_in = nn.Linear(embedding, width)
        self.embedding_proj = nn.Linear(embedding, width)
        self.encoder_hidden_states_proj = nn.Linear(embedding, width)
        self.positional_embedding = nn.Parameter(torch.zeros(1, config.tokens + 4, width))
        self.prd_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm_out = nn.LayerNorm(width)
        self.proj_to_clip_embeddings = nn.Linear(width, embedding)
        self.clip_mean = nn.Parameter(torch.zeros(1, embedding))
        self.clip_std = nn.Parameter(torch.zeros(1, embedding))

    def forward(self, x: Tensor, timestep: Tensor, key_values: Tensor, key_bias: Tensor) -> Tensor:
        """Predict, for R rows.

        Args:
            x: noisy embeddings, [R, embedding].
            timestep: [R].
            key_values: of the text, [R, layers, 2, prefix, width].
            key_bias: what is added to the scores of the text's tokens, [R, prefix].

        Returns:
            The embeddings without noise, [R, embedding].

        """
        dtype, prefix = self.proj_in.weight.dtype, self.config.prefix
        sinusoid = timestep_sinusoid(timestep, self.config.width, flip_sin_to_cos=True, freq_shift=0)
        time = self.time_embedding(sinusoid.to(dtype))
        position = self.positional_embedding[0, prefix:]
        learned = self.prd_embedding[0, 0] + position[2]
        noisy = self.proj_in(x) + position[1]
        tokens = torch.stack([time + position[0], noisy, learned.expand(noisy.shape[0], -1)], 1)
        bias = F.pad(key_bias[:, None, None], (0, 3)).to(dtype) + _causal(3, tokens.device, before=prefix).to(dtype)
        for block, cached in zip(self.transformer_blocks, key_values.unbind(1), strict=True):
            assert isinstance(block, Block)
            key, value = block.keys_and_values(tokens)
            early_key, early_value = cached.unbind(1)
            tokens = block(tokens, torch.cat([early_key, key], 1), torch.cat([early_value, value], 1), bias)
        return self.proj_to_clip_embeddings(self.norm_out(tokens[:, 2]))


def _causal(length: int, device: torch.device, *, before: int = 0) -> Tensor:
    """What hides later tokens from the last ``length``, behind ``before`` that all see: [length, before + length]."""
    row = torch.arange(length, device=device)[:, None] + before
    column = torch.arange(before + length, device=device)[None]
    return torch.where(column <= row, 0.0, _HIDDEN)


class PriorConditioner(nn.Module):
    """The component ``prior_conditioner``: the text's part of all layers.

    Args:
        prior: the network whose weights it uses; nothing of its own.

    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, hidden: Tensor, pooled: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Prepare R rows.

        Args:
            hidden: of the text's tokens, float32 [R, tokens, embedding].
            pooled: of the text as a whole, float32 [R, embedding].
            text_mask: float32 [R, tokens]; 0 hides a token, as those that only fill the text up.

        Returns:
            Keys and values [R, layers, 2, prefix, width] and what is added to their scores [R, prefix].

        """
        prior = self.prior
        dtype = prior.proj_in.weight.dtype
        text = prior.encoder_hidden_states_proj(hidden.to(dtype))
        whole = prior.embedding_proj(pooled.to(dtype))
        x = torch.cat([text, whole[:, None]], 1) + prior.positional_embedding[:, : prior.config.prefix]
        key_bias = F.pad((1.0 - text_mask) * _HIDDEN, (0, 1))
        bias = (_causal(prior.config.prefix, x.device)[None, None] + key_bias[:, None, None]).to(dtype)
        packed = []
        for i, block in enumerate(prior.transformer_blocks):
            assert isinstance(block, Block)
            key, value = block.keys_and_values(x)
            packed += [key, value]
            if i < prior.config.layers - 1:
                x = block(x, key, value, bias)
        return torch.stack(packed, 1).unflatten(1, (-1, 2)), key_bias


class PriorStep(nn.Module):
    """The component ``prior``: a whole step, from the solver's state to its next state.

    An embedding is an image of one pixel with as many channels as the embedding has numbers, so that the loop and its
    buffers know no other kind of state than that of images.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(
        self,
        state: Tensor,
        noise: Tensor,
        row_sample: Tensor,
        timestep: Tensor,
        input_scale: Tensor,
        mix: Tensor,
        predict: Tensor,
        clip: Tensor,
        update: Tensor,
        key_values: list[Tensor],
        key_bias: Tensor,
    ) -> Tensor:
        """Take one step for S samples whose network runs on R rows.

        Args:
            state: float32 [S, K, embedding, 1, 1]; ``state[:, 0]`` is the embedding.
            noise: float32 [S, embedding, 1, 1].
            row_sample: see :meth:`~sdengine.engines.nets.denoiser.Denoiser.forward`, as for the next six.
            timestep: float32 [R].
            input_scale: float32 [S].
            mix: float32 [S, R].
            predict: float32 [S, 2].
            clip: float32 [S].
            update: float32 [S, K, K + 3].
            key_values: one tensor, see :class:`PriorConditioner`.
            key_bias: float32 [R, prefix].

        Returns:
            The next state, float32 [S, K, embedding, 1, 1].

        """
        dtype = self.prior.proj_in.weight.dtype
        x = (state[:, 0, :, 0, 0] * input_scale[:, None]).index_select(0, row_sample)
        rows = self.prior(x.to(dtype), timestep, key_values[0].to(dtype), key_bias).float()
        return next_state(state, rows[:, :, None, None], noise, mix, predict, clip, update)


class PriorDecoder(nn.Module):
    """The component ``prior_decoder``: what was denoised -> the embedding of an image."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, latent: Tensor) -> Tensor:
        """Float32 [S, embedding, 1, 1] -> float32 [S, embedding]."""
        return latent[:, :, 0, 0] * self.prior.clip_std.float() + self.prior.clip_mean.float()
