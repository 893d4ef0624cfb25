"""Many images on one sheet, with a title over each row and a label under each image."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Cell", "Row", "contact_sheet"]

_INK, _PAPER, _FAINT = (28, 28, 30), (250, 250, 248), (110, 110, 115)
_MARGIN, _GAP = 24, 14
_LABEL_SIZE, _TITLE_SIZE, _LINE = 13, 18, 16


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An image and the text under it."""

    image: Image.Image
    label: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """Images in one row, and the title over them."""

    title: str
    cells: tuple[Cell, ...]


def contact_sheet(rows: Sequence[Row], *, heading: str, scale: int = 1) -> Image.Image:
    """Lay rows of images out on one sheet.

    Args:
        rows: from top to bottom.
        heading: above all rows.
        scale: whole number that small images are enlarged by.

    """
    boxes = [[_box(cell, scale) for cell in row.cells] for row in rows]
    labels = [
        [_wrapped(cell.label, box[0]) for cell, box in zip(row.cells, sizes, strict=True)]
        for row, sizes in zip(rows, boxes, strict=True)
    ]
    width = max(sum(w for w, _ in row) + _GAP * (len(row) - 1) for row in boxes) + 2 * _MARGIN
    heights = [_row_height(box, label) for box, label in zip(boxes, labels, strict=True)]
    sheet = Image.new("RGB", (width, 2 * _MARGIN + 34 + sum(heights)), _PAPER)
    canvas = ImageDraw.Draw(sheet)
    canvas.text((_MARGIN, _MARGIN), heading, fill=_INK, font=ImageFont.load_default(22))
    top = _MARGIN + 34
    for row, box, label, height in zip(rows, boxes, labels, heights, strict=True):
        _paint_row(sheet, canvas, top, row, box, label)
        top += height
    return sheet


def _box(cell: Cell, scale: int) -> tuple[int, int]:
    return cell.image.width * scale, cell.image.height * scale


def _wrapped(label: str, width: int) -> list[str]:
    return textwrap.wrap(label, max(width // 7, 8))


def _row_height(boxes: Sequence[tuple[int, int]], labels: Sequence[Sequence[str]]) -> int:
    return _TITLE_SIZE + 10 + max(h for _, h in boxes) + 6 + _LINE * max(len(lines) for lines in labels) + _GAP


def _paint_row(
    sheet: Image.Image,
    canvas: ImageDraw.ImageDraw,
    top: int,
    row: Row,
    boxes: Sequence[tuple[int, int]],
    labels: Sequence[Sequence[str]],
) -> None:
    canvas.text((_MARGIN, top), row.title, fill=_INK, font=ImageFont.load_default(_TITLE_SIZE))
    left, top = _MARGIN, top + _TITLE_SIZE + 10
    for cell, box, lines in zip(row.cells, boxes, labels, strict=True):
        sheet.paste(cell.image.resize(box, Image.Resampling.BICUBIC), (left, top))
        for i, line in enumerate(lines):
            place = (left, top + box[1] + 4 + i * _LINE)
            canvas.text(place, line, fill=_FAINT, font=ImageFont.load_default(_LABEL_SIZE))
        left += box[0] + _GAP
