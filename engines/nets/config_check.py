"""Checks a network's config before anything is built of it: its numbers come from an untrusted file.

A count that no network has would be a loop without end or all of the memory, long before a weight is missing.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from ..errors import CheckpointError
from .image_encoder_config import ImageEncoderConfig
from .movq_config import SPATIAL_GROUPS, MoVQConfig
from .network_config import NetworkConfig
from .prior_config import PriorConfig
from .safety_checker_config import SafetyCheckerConfig
from .text_config import TextEncoderConfig
from .vae_config import VAEConfig

__all__ = ["LAYERS_MOST", "checked_config"]

LAYERS_MOST = 512
"""Of anything that is repeated: blocks of a level, transformer blocks, heads. SDXL has 10 blocks, CLIP's largest text
encoder 32 layers."""
_LEVELS_MOST = 8
_WIDTH_MOST = 2**20
"""Of anything that is counted: channels, words of a vocabulary."""
_REPEATED = (
    "layers_per_block",
    "transformer_layers_per_block",
    "reverse_transformer_layers_per_block",
    "num_attention_heads",
    "attention_head_dim",
    "num_hidden_layers",
)
_LISTS = ("block_out_channels", "down_block_types", "up_block_types", "conditioning_embedding_out_channels")


def checked_config(network: str, config: Mapping[str, Any], make: Callable[[], NetworkConfig]) -> NetworkConfig:
    """Resolve a config, and check it before and after.

    Args:
        network: its name, for messages.
        config: what is resolved.
        make: resolves it.

    Raises:
        CheckpointError: a value is missing, of another type, or not one that a network can have.

    """
    _check_counts(network, config)
    try:
        resolved = make()
        # The annotations say what each value is; this compares them all.
        msgspec.convert(msgspec.to_builtins(resolved), type(resolved))
        _check_resolved(resolved)
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"the config of {network} does not say {error.args[0]}") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        raise CheckpointError(f"the config of {network} makes no sense: {error}") from error
    return resolved


def _check_counts(network: str, config: Mapping[str, Any]) -> None:
    for name in _LISTS:
        value = config.get(name)
        if isinstance(value, list | tuple) and len(value) > _LEVELS_MOST:
            raise CheckpointError(f"the config of {network} has {len(value)} {name}; {_LEVELS_MOST} are the most")
    for name, value in config.items():
        most = LAYERS_MOST if name in _REPEATED else _WIDTH_MOST
        for number in _numbers(value):
            if isinstance(number, int) and not isinstance(number, bool) and number > most:
                raise CheckpointError(f"the config of {network} has {name}={number}; {most} is the most")
            if name in _REPEATED and number < 1:
                raise CheckpointError(f"the config of {network} has {name}={number}; 1 is the least")


def _numbers(value: object) -> Iterator[int | float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


def _check_resolved(config: NetworkConfig) -> None:
    if isinstance(config, SafetyCheckerConfig):
        config = config.encoder
    if isinstance(config, TextEncoderConfig):
        counts = [config.vocabulary, config.width, config.inner, config.layers, config.heads, config.tokens]
        _divides("num_attention_heads", config.heads, config.width)
        numbers = [config.eps]
    elif isinstance(config, ImageEncoderConfig):
        counts = [config.width, config.inner, config.layers, config.heads, config.size, config.patch, config.projection]
        _divides("num_attention_heads", config.heads, config.width)
        numbers = [config.eps]
    elif isinstance(config, PriorConfig):
        counts = [config.embedding, config.tokens, config.heads, config.head, config.layers, config.time]
        numbers = []
    elif isinstance(config, MoVQConfig):
        counts = [*config.channels, config.latent, config.layers, config.groups, config.codes]
        numbers = []
        for width in config.channels:
            _divides("norm_num_groups", config.groups, width)
            _divides("the number of groups of a spatial norm", SPATIAL_GROUPS, width)
    elif isinstance(config, VAEConfig):
        counts = [*config.channels, config.latent, config.layers, config.groups]
        numbers = [config.scaling_factor, *(config.mean or ()), *(config.std or ())]
        for values in (config.mean, config.std):
            if values is not None and len(values) != config.latent:
                raise ValueError(f"there are {len(values)} means or deviations for {config.latent} latent channels")
        if config.scaling_factor == 0 or 0 in (config.std or ()):
            raise ValueError("latents are scaled by 0")
        for width in config.channels:
            _divides("norm_num_groups", config.groups, width)
    else:
        levels = (*config.down, *config.up)
        counts = [config.in_channels, config.out_channels, config.context, config.groups]
        counts += [n for level in levels for n in (level.channels, level.heads, level.layers, *level.depths)]
        numbers = [config.eps, config.freq_shift]
        for level in levels:
            _divides("norm_num_groups", config.groups, level.channels)
            if level.depths:
                _divides("attention_head_dim", level.heads, level.channels)
    if not counts or min(counts) < 1:
        raise ValueError("a count is less than 1")
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number is not finite")


def _divides(name: str, part: int, whole: int) -> None:
    if part < 1 or whole % part:
        raise ValueError(f"{name}={part} does not divide {whole}")
