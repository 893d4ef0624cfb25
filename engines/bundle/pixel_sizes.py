"""Which heights and widths a bundle generates."""

from dataclasses import dataclass

from .bundle import Bundle

__all__ = ["PixelRange", "pixel_range"]


@dataclass(frozen=True, kw_only=True)
class PixelRange:
    """Lengths of a side in pixels.

    Attributes:
        least: the shortest.
        most: the longest.
        multiple: what they are multiples of; others are refused, or rounded up, as the family has it.

    """

    least: int
    most: int
    multiple: int


def pixel_range(bundle: Bundle, axis: str) -> PixelRange:
    """Return the heights (``h``) or widths (``w``) of text-to-image."""
    allowed = next(iter(bundle.component("denoiser").graphs.values())).spec.axes[axis]
    factor = bundle.autoencoder.factor
    multiple = bundle.family.rounds_to(factor)
    return PixelRange(
        least=-(-allowed.min * factor // multiple) * multiple,
        most=allowed.max * factor // multiple * multiple,
        multiple=multiple,
    )
