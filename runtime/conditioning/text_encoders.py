"""A bundle's text encoders, each with its tokenizer and a cache of embeddings."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ...engines.bundle.bundle import Bundle
from ...engines.engine import Array
from ...engines.errors import BundleError
from ...engines.nets.text_config import TextEncoderConfig
from ..open_engines import Components
from ..prompt import TextEncoder, Tokenizer
from .text_cache import CachedTextEncoder

__all__ = ["text_encoders"]

F32 = NDArray[np.float32]


def text_encoders(bundle: Bundle, components: Components) -> Iterator[TextEncoder]:
    """Yield a bundle's text encoders.

    Args:
        bundle: the bundle.
        components: its engines, which run them. The embeddings of the last prompts are cached.

    Raises:
        BundleError: a tokenizer is missing.

    """
    for name in bundle.text_encoders:
        config = bundle.config(name)
        assert isinstance(config, TextEncoderConfig)
        folder = name.replace("text_encoder", "tokenizer")
        if folder not in bundle.manifest.tokenizers:
            raise BundleError(f"{bundle.path} has {name} but no {folder}")
        tokenizer = Tokenizer.from_folder(bundle.checked_folder(bundle.manifest.tokenizers[folder]))
        pad = bundle.manifest.pad_tokens.get(folder)
        graph = next(iter(bundle.component(name).graphs.values()))

        def run(
            input_ids: NDArray[np.int64],
            attention_mask: NDArray[np.int64],
            layer: NDArray[np.int64],
            extra_embeddings: F32,
            /,
            name: str = name,
        ) -> tuple[F32, F32]:
            inputs: Mapping[str, Array] = {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "layer": layer,
                "extra_embeddings": extra_embeddings,
            }
            outputs = components.run(name, {key: np.ascontiguousarray(value) for key, value in inputs.items()})
            return outputs["hidden"].astype(np.float32), outputs["pooled"].astype(np.float32)

        yield TextEncoder(
            name=name,
            tokenizer=tokenizer if pad is None else tokenizer.with_pad(pad),
            run=CachedTextEncoder(run),
            layers=config.layers,
            width=config.width,
            vocab_size=config.vocabulary,
            pooled_width=config.projection or config.width,
            max_batch=graph.spec.axes["B"].max,
        )
