"""Figures that others have published, for the same model at the same size and number of steps."""

from collections.abc import Iterable
from importlib.resources import files
from typing import Literal

import msgspec

from .figure import Absent

__all__ = ["PublishedFigure", "published_for"]


class PublishedFigure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One published figure.

    Attributes:
        family: of the model.
        unet_parameters: elements of its UNet: a small model of the same family is another model.
        width: pixels.
        height: pixels.
        steps: of the solver.
        batch: images of one call; None where the source does not say.
        gpu: what it was measured on.
        unit: ``ms`` for a whole call, or ``images/s``.
        value: the figure.
        source: who published it.
        url: where.

    """

    family: str
    unet_parameters: int
    width: int
    height: int
    steps: int
    batch: int | None
    gpu: str
    unit: Literal["ms", "images/s"]
    value: float
    source: str
    url: str

    def compares_with(self, case: tuple[tuple[int, int], int, int]) -> bool:
        """Whether a case (size, steps, batch) does the same work."""
        (height, width), steps, batch = case
        return (self.height, self.width, self.steps) == (height, width, steps) and self.batch in (None, batch)


def published_for(
    family: str, unet_parameters: int, cases: Iterable[tuple[tuple[int, int], int, int]], *, guided: bool
) -> list[PublishedFigure] | Absent:
    """Return what can be compared with some cases of a model, or why nothing can.

    Args:
        family: of the model.
        unet_parameters: elements of its UNet.
        cases: (size, steps, batch).
        guided: whether classifier-free guidance was on, as it is in all published figures.

    """
    known = msgspec.json.decode((files(__package__) / "published.json").read_bytes(), type=list[PublishedFigure])
    same = [f for f in known if (f.family, f.unet_parameters) == (family, unet_parameters)]
    if not same:
        return Absent(
            reason=f"none for this model: they are for {known[0].family} with {known[0].unet_parameters / 1e6:.0f} M "
            f"parameters in the UNet, this is {family} with {unet_parameters / 1e6:.1f} M"
        )
    if not guided:
        return Absent(reason="none without guidance: they are with it, which is twice the work")
    listed = list(cases)
    comparable = [figure for figure in same if any(figure.compares_with(case) for case in listed)]
    settings = ", ".join(dict.fromkeys(f"{f.width}x{f.height} with {f.steps} steps" for f in same))
    return comparable or Absent(reason=f"none for these sizes and steps: there are some for {settings}")
