"""Formats figures, on the terminal and on the page."""

from .figure import Absent, Figure
from .report import ImageDifference

__all__ = ["difference_text", "figure_text", "number"]


def number(value: float) -> str:
    """Write a number with three significant digits, whole from 100 on, and never as a power of ten."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}".replace(",", "\u202f")  # a narrow space between thousands


def figure_text(figure: Figure | Absent, quantile: str = "p50") -> str:
    """Write a percentile; an absent figure as a dash, whose reason is given elsewhere."""
    return "–" if isinstance(figure, Absent) else number(getattr(figure, quantile))


def difference_text(difference: ImageDifference | Absent) -> str:
    """Write a difference between images in one line."""
    if isinstance(difference, Absent):
        return "–"
    if difference.psnr_db is None:
        return "identical"
    return f"{difference.psnr_db:.1f} dB, at most {difference.largest:.0f} of 255"
