"""All solvers, by diffusers' class names and by short names."""

from collections.abc import Mapping

from ...engines.errors import UsageError, nearest
from .consistency import LCM, TCD
from .ddim import DDIM
from .ddpm import DDPM
from .deis import DEIS
from .dpm2 import DPM2, DPM2_ANCESTRAL
from .dpm_multistep import DPM_MULTISTEP
from .dpm_sde import DPM_SDE
from .dpm_singlestep import DPM_SINGLESTEP
from .edm import EDM_DPM_MULTISTEP, EDM_EULER
from .euler import EULER, EULER_ANCESTRAL
from .heun import HEUN
from .lms import LMS
from .pndm import PNDM
from .solver import Solver
from .unclip import UNCLIP
from .unipc import UNIPC

__all__ = ["SOLVERS", "find_solver", "solver_names"]

_ALL = (
    DDIM,
    DDPM,
    DEIS,
    DPM2,
    DPM2_ANCESTRAL,
    DPM_MULTISTEP,
    DPM_SDE,
    DPM_SINGLESTEP,
    EDM_DPM_MULTISTEP,
    EDM_EULER,
    EULER,
    EULER_ANCESTRAL,
    HEUN,
    LCM,
    LMS,
    PNDM,
    TCD,
    UNIPC,
)

SOLVERS: Mapping[str, Solver] = {solver.name: solver for solver in _ALL}

_FOR_PRIORS: Mapping[str, Solver] = {UNCLIP.name: UNCLIP}
"""Solvers for the embeddings that priors denoise; images are not denoised with them."""

_SHORT: Mapping[str, tuple[Solver, Mapping[str, object]]] = {
    short: (solver, implied) for solver in SOLVERS.values() for short, implied in solver.short_names.items()
}


def solver_names() -> tuple[str, ...]:
    """Return every name that :func:`find_solver` accepts: diffusers' class names, then the short ones."""
    return (*SOLVERS, *_SHORT)


def find_solver(name: str) -> tuple[Solver, Mapping[str, object]]:
    """Return the solver of that name, and the options that the name implies.

    Case, spaces and ``-`` do not matter in short names; ``++`` may be written ``pp``.

    Raises:
        UsageError: there is none; the message names the known ones and the nearest.

    """
    for solvers in (SOLVERS, _FOR_PRIORS):
        if name in solvers:
            return solvers[name], {}
    plain = name.strip().lower().replace("++", "pp").replace(" ", "_").replace("-", "_")
    if plain in _SHORT:
        return _SHORT[plain]
    for class_name in (f"{name}Scheduler", f"{name}DiscreteScheduler"):
        if class_name in SOLVERS:
            return SOLVERS[class_name], {}
    short = ", ".join(_SHORT)
    classes = ", ".join(SOLVERS)
    suggestion = nearest(name, [*SOLVERS, *_SHORT]) or nearest(plain, _SHORT)
    raise UsageError(f"unknown solver {name!r}{suggestion} (known: {short}; {classes})")
