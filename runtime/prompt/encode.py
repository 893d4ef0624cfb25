"""Makes embeddings from prompts, for every family with CLIP text encoders.

Embeddings of several encoders are joined along the width; pooled ones come from the last encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...engines.errors import UsageError
from ...engines.families import TextReading
from .bracket_weights import Fragment, parse_weights
from .encode_batch import encode_layouts
from .encoder import Hidden, TextEncoder
from .layout import Layout, lay_out
from .prompt_checks import check_against_family, unused
from .prompt_request import PromptRequest

__all__ = ["EncodedPrompts", "encode_prompts"]


@dataclass(frozen=True, kw_only=True)
class EncodedPrompts:
    """Embeddings of B prompts.

    Attributes:
        hidden: f32 [B, T, D]; T is 77 times the number of windows.
        pooled: f32 [B, P], for families that have them.
        negative_hidden: f32 [B, T, D] of the negative prompts, with guidance.
        negative_pooled: f32 [B, P] of the negative prompts, with guidance, for families that have them.
        mask: f32 [B, T], of the last encoder: 1 for tokens of the text, 0 for padding; None if the request has
            embeddings in place of text.
        negative_mask: the same for the negative prompts.
        warnings: what the user should know.

    """

    hidden: Hidden
    pooled: Hidden | None
    negative_hidden: Hidden | None
    negative_pooled: Hidden | None
    warnings: tuple[str, ...]
    mask: Hidden | None = None
    negative_mask: Hidden | None = None


@dataclass(frozen=True, kw_only=True)
class _Side:
    """The prompts, or the negative prompts: the request's embeddings, or the layouts of its texts."""

    layers: tuple[int, ...]
    """the layer to take from each encoder"""
    hidden: Hidden | None = None
    pooled: Hidden | None = None
    layouts: tuple[tuple[Layout, ...], ...] = ()
    """[encoder][prompt]"""


def encode_prompts(
    encoders: Sequence[TextEncoder],
    request: PromptRequest,
    *,
    family: TextReading,
    guidance: bool,
    force_zeros_for_empty_prompt: bool = False,
) -> EncodedPrompts:
    """Encode a request's prompts, or check the embeddings that it has in place of them.

    Args:
        encoders: the family's text encoders, in order; none if the request has all embeddings.
        request: the prompts.
        family: how the family encodes text.
        guidance: whether negative embeddings are needed.
        force_zeros_for_empty_prompt: the checkpoint's setting: without a negative prompt, its embeddings are zeros.

    Raises:
        UsageError: a prompt or embeddings do not suit the text encoders.

    """
    check_against_family(encoders, request, family)
    zeros = force_zeros_for_empty_prompt and request.negative_prompt is None and request.negative_prompt_embeds is None
    warnings = unused(request, guidance=guidance, zeros=zeros)
    sides = [_side(encoders, request, family, "", warnings)]
    if guidance and not zeros:
        sides.append(_side(encoders, request, family, "negative_", warnings))
    (hidden, pooled), *rest = _embeddings(encoders, sides)
    negative: tuple[Hidden | None, Hidden | None] = rest[0] if rest else (None, None)
    if guidance and zeros:
        negative = np.zeros_like(hidden), None if pooled is None else np.zeros_like(pooled)
    return EncodedPrompts(
        hidden=hidden,
        pooled=pooled if family.pooled else None,
        negative_hidden=negative[0],
        negative_pooled=negative[1] if family.pooled else None,
        warnings=tuple(dict.fromkeys(warnings)),
        mask=_mask(sides[0]),
        negative_mask=_mask(sides[1]) if len(sides) > 1 else None,
    )


def _mask(side: _Side) -> Hidden | None:
    """Return the mask of a side's tokens, [B, T]; None if its prompts have different numbers of windows."""
    if not side.layouts or len({layout.filled.shape for layout in side.layouts[-1]}) > 1:
        return None
    return np.stack([layout.filled.ravel() for layout in side.layouts[-1]])


def _side(
    encoders: Sequence[TextEncoder], request: PromptRequest, family: TextReading, sign: str, warnings: list[str]
) -> _Side:
    """Collect one side of the request; ``sign`` is "" or "negative_"."""
    # as in diffusers, clip_skip has no effect on the negative prompt
    layers = tuple(_layer(encoder, family, 0 if sign else request.clip_skip or 0) for encoder in encoders)
    hidden, pooled = getattr(request, f"{sign}prompt_embeds"), getattr(request, f"{sign}pooled_prompt_embeds")
    if hidden is not None:
        pooled_embeds = None if pooled is None else np.asarray(pooled, np.float32)
        return _Side(layers=layers, hidden=np.asarray(hidden, np.float32), pooled=pooled_embeds)
    if not encoders:
        raise UsageError(f"there is no text encoder to read {sign}prompt with: give {sign}prompt_embeds")
    first = request.texts(f"{sign}prompt") or [""] * request.batch
    layouts = []
    for encoder, source in zip(encoders, family.sources, strict=True):
        is_set = getattr(request, f"{sign}{source}")  # as in diffusers, an empty prompt_2 counts as not set
        texts = (request.texts(f"{sign}{source}") if is_set else None) or first
        layouts.append(tuple(_lay_out(encoder, text, request, family, warnings) for text in texts))
    return _Side(layers=layers, layouts=tuple(layouts))


def _layer(encoder: TextEncoder, family: TextReading, clip_skip: int) -> int:
    most = encoder.layers - family.skipped_layers
    if not -family.skipped_layers <= clip_skip <= most:
        raise UsageError(f"clip_skip={clip_skip} is out of range: {encoder.name} has layers for 0 to {most}")
    return most - clip_skip


def _lay_out(
    encoder: TextEncoder, text: str, request: PromptRequest, family: TextReading, warnings: list[str]
) -> Layout:
    breaks = request.long_prompt == "chunk"
    fragments, notes = parse_weights(text, breaks=breaks) if request.weighting else ([Fragment(text, 1.0)], [])
    layout = lay_out(encoder.tokenizer, fragments, request.long_prompt)
    warnings += notes
    if layout.cut:
        words = encoder.tokenizer.decode(layout.cut)
        instead = " (long_prompt='chunk' keeps it)" if family.chunks else ""
        warnings.append(f"the prompt is too long by {len(layout.cut)} tokens: {words!r} was left out{instead}")
    return layout


def _embeddings(encoders: Sequence[TextEncoder], sides: Sequence[_Side]) -> list[tuple[Hidden, Hidden | None]]:
    """Return every side's embeddings, all of the same number of windows."""
    _check_token_counts(encoders, sides)
    windows = max(_windows(side, encoders) for side in sides)
    from_text = [side for side in sides if side.hidden is None]
    encoded = iter(_encode(encoders, from_text, windows))
    embeddings: list[tuple[Hidden, Hidden | None]] = []
    for side in sides:
        if side.hidden is None:
            embeddings.append(next(encoded))
            continue
        missing = windows - _windows(side, encoders)
        hidden = side.hidden
        if missing:
            layouts = tuple((lay_out(encoder.tokenizer, [Fragment("", 1.0)]),) for encoder in encoders)
            [(filler, _)] = _encode(encoders, [_Side(layers=side.layers, layouts=layouts)], missing)
            hidden = np.concatenate([hidden, np.repeat(filler, len(hidden), axis=0)], axis=1)
        embeddings.append((hidden, side.pooled))
    return embeddings


def _check_token_counts(encoders: Sequence[TextEncoder], sides: Sequence[_Side]) -> None:
    """Check that both sides have the same number of tokens; text is encoded in whole windows only."""
    counts = [side.hidden.shape[1] for side in sides if side.hidden is not None]
    if len(set(counts)) > 1:
        raise UsageError(
            f"prompt_embeds have {counts[0]} tokens and negative_prompt_embeds {counts[1]}: make them equal"
        )
    if 0 < len(counts) < len(sides) and counts[0] % encoders[0].tokenizer.max_length:
        window = encoders[0].tokenizer.max_length
        raise UsageError(
            f"the embeddings have {counts[0]} tokens, no multiple of {window}, so no text can be encoded to match: "
            "give both prompt_embeds and negative_prompt_embeds"
        )


def _windows(side: _Side, encoders: Sequence[TextEncoder]) -> int:
    """How many windows a side takes."""
    if side.hidden is None:
        return max(len(layout.ids) for row in side.layouts for layout in row)
    return side.hidden.shape[1] // encoders[0].tokenizer.max_length if encoders else 1


def _encode(encoders: Sequence[TextEncoder], sides: Sequence[_Side], windows: int) -> list[tuple[Hidden, Hidden]]:
    """Encode the sides' layouts; sides that take the same layer share a call."""
    hidden: list[list[Hidden]] = [[] for _ in sides]
    pooled: list[Hidden] = [np.empty(0, np.float32)] * len(sides)
    for e, encoder in enumerate(encoders):
        parts: dict[int, tuple[Hidden, Hidden]] = {}
        for layer in dict.fromkeys(side.layers[e] for side in sides):
            same = [i for i, side in enumerate(sides) if side.layers[e] == layer]
            states, pools = encode_layouts(encoder, [x for i in same for x in sides[i].layouts[e]], layer, windows)
            start = 0
            for i in same:
                part = slice(start, start := start + len(sides[i].layouts[e]))
                parts[i] = states[part], pools[part]
        for i, (state, pool) in parts.items():
            hidden[i].append(state)
            pooled[i] = pool
    return [(np.concatenate(states, axis=-1), pool) for states, pool in zip(hidden, pooled, strict=True)]
