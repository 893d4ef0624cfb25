"""``pipe.tokenizer`` and ``pipe.text_encoder``: they can be called, for prompts that are encoded outside (Compel).

The network runs in the pipeline's engine. Its graph returns one hidden layer, so layers are computed as they are asked
for; SD 1's and SD 2's come after the final layer norm, as their UNets take them, and SDXL's before it.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from ...engines.nets.text_config import TextEncoderConfig
from .parts import PartOf, UnknownAttributeError
from .schedulers import Config
from .torch_values import tensor_of

if TYPE_CHECKING:
    from ..prompt import TextEncoder, Tokenizer
    from .opening import Opening

__all__ = ["TextEncoderOutput", "TextEncoderPart", "TokenizerPart", "part_of"]

_PADDINGS = (False, True, "do_not_pad", "longest", "max_length")


def _encoder(part: PartOf) -> "TextEncoder":
    name = part.name.replace("tokenizer", "text_encoder")
    return next(encoder for encoder in part.opening.pipeline().preparer.encoders if encoder.name == name)


class TokenizerPart(PartOf):
    """A tokenizer: text to ids, as transformers' ``CLIPTokenizer``; it knows the words of textual inversions."""

    @property
    def _own(self) -> "Tokenizer":
        return _encoder(self).tokenizer

    def __call__(  # type: ignore[override]
        self,
        text: str | Sequence[str],
        *,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        return_tensors: str | None = None,
    ) -> Config:
        """Return ``input_ids`` and ``attention_mask``: lists, or with ``return_tensors`` arrays or tensors.

        Args:
            text: one, or several.
            padding: ``max_length``, ``longest`` or True, or none.
            truncation: cut at ``max_length``.
            max_length: with the markers; None is the encoder's, 77.
            add_special_tokens: put the markers around the text.
            return_tensors: ``pt``, ``np`` or None.

        Raises:
            UsageError: an argument has another value, or the texts are no text.

        """
        if padding not in _PADDINGS:
            raise UsageError(f"padding={padding!r} is none of {', '.join(map(repr, _PADDINGS))}")
        if return_tensors not in (None, "np", "pt"):
            raise UsageError(f"return_tensors={return_tensors!r} is neither 'pt' nor 'np'")
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, (list, tuple)) or not all(isinstance(one, str) for one in texts):
            raise UsageError("a tokenizer reads text: give a string, or a list of them")
        own, most = self._own, max_length or self.model_max_length
        rows = []
        for one in texts:
            ids = own.encode(one)
            ids = ids[: most - 2 * add_special_tokens] if truncation else ids
            rows.append([own.bos, *ids, own.eos] if add_special_tokens else ids)
        longest = most if padding == "max_length" else max(map(len, rows), default=0)
        padded = padding not in (False, "do_not_pad")
        masks = [[1] * len(row) + [0] * (longest - len(row) if padded else 0) for row in rows]
        rows = [row + [own.pad] * (longest - len(row)) if padded else row for row in rows]
        if return_tensors is None:
            return Config(
                {"input_ids": rows, "attention_mask": masks}
                if not isinstance(text, str)
                else {"input_ids": rows[0], "attention_mask": masks[0]}
            )
        if len({*map(len, rows)}) > 1:
            raise UsageError("texts of different lengths are no tensor: give padding='max_length'")
        arrays = {"input_ids": np.array(rows, np.int64), "attention_mask": np.array(masks, np.int64)}
        return Config({k: tensor_of(v) if return_tensors == "pt" else v for k, v in arrays.items()})

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self(text, add_special_tokens=add_special_tokens)["input_ids"]
        return ids

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, without markers."""
        return self.convert_ids_to_tokens(self._own.encode(text))

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens of ids."""
        return self._own.tokens(ids)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return readable text of ids."""
        markers = {self._own.bos, self._own.eos} if skip_special_tokens else set()
        return self._own.decode([int(i) for i in ids if int(i) not in markers])

    def __len__(self) -> int:
        return self._own.vocab_size + len(self._own.placeholders)

    @property
    def model_max_length(self) -> int:
        """Tokens of a window, with its markers."""
        return self._own.max_length

    @property
    def vocab_size(self) -> int:
        """Number of ids, without words of textual inversions."""
        return self._own.vocab_size

    @property
    def bos_token_id(self) -> int:
        """Id of the marker at the start."""
        return self._own.bos

    @property
    def eos_token_id(self) -> int:
        """Id of the marker at the end."""
        return self._own.eos

    @property
    def pad_token_id(self) -> int:
        """Id that fills a window up."""
        return self._own.pad


class TextEncoderPart(PartOf):
    """A text encoder: ids to hidden states and the pooled text, on the pipeline's engine."""

    def __call__(  # type: ignore[override]
        self,
        input_ids: Any,
        attention_mask: Any = None,
        *,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> "TextEncoderOutput":
        """Encode windows of ids.

        Args:
            input_ids: [B, T], of an array or a tensor.
            attention_mask: [B, T]; 0 hides a token from those after it. None hides none.
            output_hidden_states: has no effect: they are computed as they are asked for.
            return_dict: has no effect: the output is read by name and by place.

        Raises:
            UsageError: they are no windows of ids.

        """
        ids = _integers("input_ids", input_ids)
        mask = np.ones_like(ids) if attention_mask is None else _integers("attention_mask", attention_mask)
        if mask.shape != ids.shape:
            raise UsageError(f"attention_mask has shape {list(mask.shape)}, input_ids has {list(ids.shape)}")
        encoder = _encoder(self)
        config = self.opening.pipeline().bundle.config(encoder.name)
        assert isinstance(config, TextEncoderConfig)
        if ids.shape[1] > config.tokens:
            raise UsageError(f"input_ids has {ids.shape[1]} tokens a row; {self.name} takes {config.tokens}")
        return TextEncoderOutput(encoder, config, ids, mask)


def _integers(name: str, value: Any) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"{name} is [B, T] whole numbers, not {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)


class TextEncoderOutput:
    """What a text encoder returns, by transformers' names, or by place.

    ``last_hidden_state`` [B, T, D] of SD 1's and SD 2's encoders, ``hidden_states``, each [B, T, D], of SDXL's;
    ``pooler_output`` or, of encoders with a projection, ``text_embeds`` [B, P].
    """

    def __init__(
        self, encoder: "TextEncoder", config: TextEncoderConfig, ids: NDArray[np.int64], mask: NDArray[np.int64]
    ) -> None:
        self._encoder = encoder
        self._config = config
        self._ids = ids
        self._mask = mask

    def _layer(self, layer: int) -> tuple[Any, Any]:
        from ..prompt.encoder import Window

        windows = [Window(ids, None if mask.all() else mask) for ids, mask in zip(self._ids, self._mask, strict=True)]
        pairs = self._encoder.encode(windows, layer)
        hidden, pooled = (np.stack(part) for part in zip(*pairs, strict=True))
        return tensor_of(hidden), tensor_of(pooled)

    def __getattr__(self, name: str) -> Any:
        names = [
            "last_hidden_state" if self._config.final_norm else "hidden_states",
            "pooler_output" if self._config.projection is None else "text_embeds",
        ]
        if name not in names:
            missing = {
                "last_hidden_state": ": SDXL's encoders return layers before the final layer norm",
                "hidden_states": ": SD 1's and SD 2's encoders return layers after the final layer norm; the call's "
                "clip_skip takes others than the last",
            }.get(name, "")
            raise UnknownAttributeError(
                f"the output of {self._encoder.name} has no {name}{missing}; it has {' and '.join(names)}"
            )
        if name == "hidden_states":
            return HiddenStates(self)
        hidden, pooled = self._layer(self._config.layers)
        return hidden if name == "last_hidden_state" else pooled

    def __getitem__(self, place: Any) -> Any:
        names = ("last_hidden_state", "pooler_output") if self._config.projection is None else ("text_embeds",)
        return getattr(self, place if isinstance(place, str) else names[place])


class HiddenStates(Sequence[Any]):
    """The layers, each computed as it is asked for: the first is the embeddings, the last the last layer's."""

    def __init__(self, output: TextEncoderOutput) -> None:
        self._output = output

    def __len__(self) -> int:
        return self._output._config.layers + 1

    def __getitem__(self, layer: Any) -> Any:
        return self._output._layer(range(len(self))[layer])[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[layer] for layer in range(len(self)))


def part_of(opening: "Opening", name: str) -> PartOf:
    """Return a part of what is opened."""
    kinds = {"tokenizer": TokenizerPart, "text_encoder": TextEncoderPart}
    return kinds.get(name.removesuffix("_2"), PartOf)(opening, name)
