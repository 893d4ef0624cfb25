"""The result of a call."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.registry import Fallback

__all__ = ["Result", "Timings", "timed"]


@dataclass(kw_only=True)
class Timings:
    """Milliseconds of each stage.

    Attributes:
        load: opening the bundle.
        loras: changing to the call's LoRAs.
        text: encoding the prompts.
        condition: computing the conditions: keys and values, ControlNets' hints.
        encode: encoding images, and making the initial latents.
        denoise: all steps.
        decode: from latents to images.
        total: the whole call, without ``load`` and ``loras``.
        steps: one entry for each evaluation of the network, or for each captured loop.

    """

    load: float = 0.0
    loras: float = 0.0
    text: float = 0.0
    condition: float = 0.0
    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    total: float = 0.0
    steps: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The images of a call, and how they were generated.

    Attributes:
        images: by ``output_type``: PIL images (``pil``), float32 [N, H, W, 3] of 0 to 1 (``np``), float32
            [N, C, h, w] (``latent``), or the embeddings that images would be generated from, float32 [N, D]
            (``embeds``).
        image_embeds: the embeddings that they were generated from, float32 [N, D], in families that have them; None
            if a callback stopped the call before they were computed.
        negative_image_embeds: the embeddings that guidance led away from, float32 [N, D].
        seeds: one for each image.
        nsfw_content_detected: for each image, whether the safety checker has flagged it, which makes it black; None
            if none has looked at them: the bundle holds none, it is switched off, or the output is no image.
        height: pixels; 0 with ``embeds``.
        width: pixels; 0 with ``embeds``.
        engines: component -> engine that ran it.
        fallbacks: engines that were skipped, with reasons.
        auto_ms: what an evaluation of the denoiser took on each of the engines that ``auto`` chose among, in
            milliseconds, when it was timed on this machine; empty where an engine was named or there was no choice.
        timings_ms: see :class:`Timings`.
        warnings: what a user should know.
        settings: the request's settings, defaults filled in; JSON values.
        checks: which of the bundle's bytes were compared with their hashes before they were used: the policy
            ``verify``, ``hashed_bytes`` since the bundle was opened, ``remembered_bytes`` that were compared at an
            earlier start and have not changed, ``unchecked_bytes``, and ``hash_ms``.
        loras: those that were merged into the weights: ``name``, ``sha256``, ``strength``, ``scale``, ``kinds``,
            and ``weights``, how many of each network's weights it changes.

    """

    images: Any
    seeds: tuple[int, ...]
    height: int
    width: int
    engines: dict[str, str]
    fallbacks: tuple[Fallback, ...]
    timings_ms: Timings
    warnings: tuple[str, ...]
    settings: dict[str, Any]
    checks: dict[str, Any] = field(default_factory=dict)
    loras: tuple[dict[str, Any], ...] = ()
    auto_ms: dict[str, float] = field(default_factory=dict)
    image_embeds: NDArray[np.float32] | None = None
    negative_image_embeds: NDArray[np.float32] | None = None
    nsfw_content_detected: list[bool] | None = None

    @property
    def latents(self) -> NDArray[np.float32]:
        """The latents, where ``output_type`` was ``latent``."""
        return np.asarray(self.images, np.float32)


@contextlib.contextmanager
def timed(timings: Timings, stage: str) -> Iterator[None]:
    """Add the milliseconds that the body takes to a stage."""
    started = time.perf_counter()
    try:
        yield
    finally:
        setattr(timings, stage, getattr(timings, stage) + (time.perf_counter() - started) * 1e3)
