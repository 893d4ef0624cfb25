"""Optimisation profiles: the ranges of shapes that a plan is compiled for."""

from collections.abc import Mapping, Sequence

from ..bundle.bundle import Bundle
from ..spec import AxisRange, ComponentSpec

__all__ = ["Profile", "profiles_for", "shapes_of", "vae_factor"]

Profile = dict[str, AxisRange]
"""The range of every axis of a component."""


def vae_factor(bundle: Bundle) -> int:
    """Return the pixels per latent, along a side."""
    return bundle.autoencoder.factor


def profiles_for(spec: ComponentSpec, sizes: Sequence[tuple[int, int]], *, factor: int) -> tuple[Profile, ...]:
    """Return the profiles to build a component for.

    Kernels are optimised for *opt*, and a wide range costs speed and memory. So each listed size gets a profile of that
    size alone; samples, rows and tokens keep their ranges. Without listed sizes there is one profile over everything.

    Args:
        spec: the component.
        sizes: heights and widths in pixels, or nothing.
        factor: pixels per latent.

    """
    if not sizes or "h" not in spec.axes:
        return (dict(spec.axes),)
    profiles: list[Profile] = []
    for height, width in dict.fromkeys(sizes):
        lengths = {"h": height // factor, "w": width // factor}
        if any(length > spec.axes[axis].max for axis, length in lengths.items()):
            profile = dict(spec.axes)  # of a VAE that is for tiles
        else:
            profile = spec.axes | {axis: AxisRange(length, length, length) for axis, length in lengths.items()}
        if profile not in profiles:
            profiles.append(profile)
    return tuple(profiles)


def shapes_of(spec: ComponentSpec, profile: Mapping[str, AxisRange]) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the smallest, the optimal and the largest shape of every input whose shape is dynamic."""
    ends = [{axis: getattr(sizes, end) for axis, sizes in profile.items()} for end in ("min", "opt", "max")]
    return {
        tensor.name: tuple(tensor.resolve(sizes) for sizes in ends)
        for tensor in spec.inputs
        if any(isinstance(dim, str) for dim in tensor.shape)
    }
