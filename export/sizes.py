"""Reads ``--sizes`` and ``--batch`` and turns them into the ranges of the axes."""

import re
from dataclasses import dataclass

from ..engines.errors import UsageError
from ..engines.spec import AxisRange

__all__ = ["Sizes", "axes_for", "parse_batch", "parse_sizes"]

_WINDOWS = 4
"""Windows of 77 tokens that a row's text may have."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes in pixels.

    Attributes:
        height: the range of heights.
        width: the range of widths.
        listed: (height, width) pairs when sizes were listed, each in both orientations, else empty.

    """

    height: AxisRange
    width: AxisRange
    listed: tuple[tuple[int, int], ...] = ()


def parse_sizes(text: str | None, *, native: int, multiple: int) -> Sizes:
    """Read sizes.

    Args:
        text: ``1024x1024,832x1216`` (width x height), ``512..1024`` (both sides), or None for half to twice the
            native size. Heights and widths from the shortest to the longest side listed can be generated.
        native: the side in pixels that the checkpoint was trained on.
        multiple: what heights and widths must be a multiple of.

    Raises:
        UsageError: it cannot be read, or a size is no multiple.

    """
    if text is None:
        low = max(native // 2 // multiple, 1) * multiple
        both = AxisRange(low, native, native * 2)
        return Sizes(height=both, width=both)
    span = re.fullmatch(r"\s*(\d+)\s*\.\.\s*(\d+)\s*", text)
    if span:
        low, high = (_checked(int(n), multiple) for n in span.groups())
        if low > high:
            raise UsageError(f"sizes {text!r}: the range is empty; write {high}..{low}")
        both = AxisRange(low, min(max(native, low), high), high)
        return Sizes(height=both, width=both)
    listed = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*", item)
        if match is None:
            raise UsageError(f"sizes {text!r}: write WIDTHxHEIGHT,WIDTHxHEIGHT,... or LEAST..MOST")
        width, height = (_checked(int(n), multiple) for n in match.groups())
        listed.append((height, width))
    sides = [side for size in listed for side in size]
    turned = [(width, height) for height, width in listed]
    least, most = min(sides), max(sides)
    return Sizes(
        height=AxisRange(least, listed[0][0], most),
        width=AxisRange(least, listed[0][1], most),
        listed=tuple(dict.fromkeys([*listed, *turned])),
    )


def _checked(side: int, multiple: int) -> int:
    if side < multiple or side % multiple:
        near = max(round(side / multiple), 1) * multiple
        raise UsageError(f"a side of {side} pixels is no multiple of {multiple}; {near} is")
    return side


def parse_batch(text: str) -> AxisRange:
    """Read ``4`` or ``1..4``: how many images may be generated at once.

    Raises:
        UsageError: it cannot be read.

    """
    match = re.fullmatch(r"\s*(?:(\d+)\s*\.\.\s*)?(\d+)\s*", text)
    low, high = (int(match[1] or 1), int(match[2])) if match else (0, 0)
    if not 1 <= low <= high <= 64:
        raise UsageError(f"batch {text!r}: write MOST or LEAST..MOST, from 1 to 64")
    return AxisRange(low, low, high)


def axes_for(sizes: Sizes, batch: AxisRange, *, factor: int, tokens: int) -> dict[str, AxisRange]:
    """Return the ranges of all axes; see :mod:`sdengine.engines.component_specs`.

    Args:
        sizes: in pixels.
        batch: samples of a request.
        factor: pixels per latent.
        tokens: of one window of text.

    """
    rows = AxisRange(1, 2 * batch.opt, 2 * batch.max)
    return {
        "S": AxisRange(1, batch.opt, batch.max),
        "R": rows,
        # Embeddings of negative prompts are cached, so usually there is one new text per image.
        "B": AxisRange(1, batch.opt, rows.max * _WINDOWS),
        "T": AxisRange(1, tokens, tokens * _WINDOWS),
        "E": AxisRange(1, 1, 256),
        "h": AxisRange(sizes.height.min // factor, sizes.height.opt // factor, sizes.height.max // factor),
        "w": AxisRange(sizes.width.min // factor, sizes.width.opt // factor, sizes.width.max // factor),
    }
