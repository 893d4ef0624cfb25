"""Options of building a plan."""

import re
from collections.abc import Sequence

import msgspec

from ..errors import UsageError, nearest
from .library import ONLY_TENSORRT, Library

__all__ = ["TARGETS", "BuildOptions", "targets_for"]

TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""GPU generations that TensorRT-RTX 1.7 compiles for: Turing, Ampere, Ada and Blackwell. Hopper (sm90) and the
Blackwell of data centres (sm100) need TensorRT itself."""


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a build; all of them are part of a plan's key.

    Attributes:
        workspace: most bytes of scratch memory that a kernel may use; None takes what is free on the GPU when the build
            begins, and where there is no GPU leaves it to the library.
        optimization_level: 0 (build fast) to 5 (search long); None is the library's default, 3.
        timing_cache: keep the timings of kernels beside the plans, per GPU and version; TensorRT only.
        weight_streaming: let the runtime keep a part of the weights in host memory.
        refit: weights can be replaced in the open plan, as LoRAs need. Kernels may be slower, and TensorRT 11.3 warns
            that a bias can be lost in such a plan even before any refit: compare its images.
        strip: leave the weights out of the plan; they are put in from the bundle's weights file as the plan is opened.
            Without ``refit`` these and no others can be put in, at no cost in speed.
        hardware_compatible: one plan for Ampere and everything newer, at some cost in speed; TensorRT only.
        version_compatible: a plan that newer releases of the same major version open; TensorRT only.
        targets: GPU generations to compile for, such as ``sm89``; TensorRT-RTX only. Empty means the GPU here.

    Raises:
        UsageError: a value is out of range.

    """

    workspace: int | None = None
    optimization_level: int | None = None
    timing_cache: bool = False
    weight_streaming: bool = False
    refit: bool = False
    strip: bool = False
    hardware_compatible: bool = False
    version_compatible: bool = False
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workspace is not None and self.workspace < 1 << 20:
            raise UsageError(f"workspace={self.workspace} is in bytes and at least {1 << 20} (1 MiB)")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(f"optimization_level={self.optimization_level} is none of 0 to 5")


def targets_for(library: Library, options: BuildOptions, here: str | None) -> tuple[str, ...]:
    """Return what to build for, after checking that the library has every option.

    Args:
        library: what builds.
        options: of the build.
        here: the generation of this machine's GPU, or None where there is none.

    Raises:
        UsageError: the library lacks an option, a target is unknown, or there is neither a target nor a GPU.

    """
    if not library.ahead_of_time:
        if options.targets:
            raise UsageError(
                f"{library.engine} builds for the GPU it runs on; leave targets out, or build for tensorrt-rtx"
            )
        if here is None:
            raise UsageError("tensorrt needs the GPU it builds for, and there is none here; tensorrt-rtx does not")
        return (here,)
    for name, reason in ONLY_TENSORRT.items():
        if getattr(options, name):
            raise UsageError(f"{library.engine} has no {name}: {reason}")
    targets: Sequence[str] = options.targets or ((here,) if here else ())
    if not targets:
        raise UsageError(f"there is no GPU here to build for; name targets: any of {', '.join(TARGETS)}")
    for target in targets:
        if target not in TARGETS:
            hint = "; sm90 and sm100 need tensorrt" if re.fullmatch("sm(90|100)", target) else nearest(target, TARGETS)
            raise UsageError(f"unknown target {target!r}; {library.engine} has {', '.join(TARGETS)}{hint}")
    return tuple(sorted(set(targets), key=TARGETS.index))
