"""Computes a schedule from a scheduler's config and the settings of a request."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ...engines.errors import UsageError
from .combinations import COLUMNS, OUTPUT, Array, X, update_table
from .cut import Cut, evaluations
from .schedule import Schedule
from .solver import Grid, ScheduleRequest, Solver
from .solver_options import resolve_options
from .solver_registry import SOLVERS, find_solver

__all__ = ["make_schedule"]

_NOTHING: Mapping[str, object] = MappingProxyType({})


def make_schedule(
    config: Mapping[str, object],
    *,
    num_inference_steps: int | None,
    solver: str | None = None,
    overrides: Mapping[str, object] = _NOTHING,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    strength: float | None = None,
    denoising_start: float | None = None,
    denoising_end: float | None = None,
    eta: float = 0.0,
) -> Schedule:
    """Compute a schedule.

    Args:
        config: the checkpoint's ``scheduler_config.json``.
        num_inference_steps: number of steps; None when ``timesteps`` or ``sigmas`` are set.
        solver: a diffusers class name or a short name (:func:`.solver_names`); the config's ``_class_name`` if None.
        overrides: options that replace the config's, as in diffusers' ``from_config(config, **overrides)``.
        timesteps: custom timesteps, descending, for solvers that accept them.
        sigmas: custom noise-to-signal ratios, descending, the last one being that after the last step, for solvers that
            accept them.
        strength: share of the steps to take, starting from an image with noise added; None starts from noise.
        denoising_start: share of the schedule that another model has run already; its latent is the start, and
            ``strength`` is not used.
        denoising_end: share of the schedule after which to stop.
        eta: share of DDPM's noise in DDIM, or the stochasticity of TCD, in [0, 1].

    Raises:
        UsageError: an unknown solver or option, an option that the solver does not have, settings that make a factor
            infinite or NaN (where diffusers returns NaN), or settings that leave no step.

    """
    chosen, implied = _choose(config, solver)
    options = resolve_options(chosen.name, chosen.options, config, {**implied, **overrides})
    _check_supported(chosen, timesteps=timesteps, sigmas=sigmas, eta=eta or None)
    request = ScheduleRequest(
        solver=chosen.name,
        options=options,
        steps=_checked_steps(num_inference_steps, timesteps, sigmas, options.num_train_timesteps),
        timesteps=None if timesteps is None else _descending("timesteps", timesteps),
        sigmas=None if sigmas is None else _descending("sigmas", sigmas),
        eta=_checked_eta(eta),
    )
    cut = Cut(strength=strength, denoising_start=denoising_start, denoising_end=denoising_end)
    unused = sorted(chosen.options.unused & set(overrides))
    warnings = tuple(f"{chosen.name} does not use {name}: it has no effect" for name in unused)
    schedule = _assemble(chosen, request, cut, warnings)
    return replace(schedule, warnings=(*schedule.warnings, *_few_steps(request, schedule)))


_FEW = 4
"""Most steps that distilled models such as SDXL-Turbo are meant for."""


def _few_steps(request: ScheduleRequest, schedule: Schedule) -> list[str]:
    """Warn of few steps with ``leading`` timesteps, which begin where hardly any noise is left."""
    first, training = float(schedule.timesteps[0]), request.options.num_train_timesteps
    few = request.steps is not None and request.steps <= _FEW
    if request.options.timestep_spacing != "leading" or not few or first > training / (2 * _FEW):
        return []
    return [
        f"the first timestep is {first:g} of {training}, where hardly any noise is left: timestep_spacing='leading' is "
        "not for so few steps; timestep_spacing='trailing' is meant"
    ]


def _assemble(solver: Solver, request: ScheduleRequest, cut: Cut, warnings: tuple[str, ...]) -> Schedule:
    # Intermediate numbers may be infinite (lambda at zero noise, for instance); only the result must be finite.
    with np.errstate(all="ignore"):
        grid = solver.grid(request)
        i = evaluations(solver, request, grid, cut)
        steps = solver.steps(request, grid, i)
        update = update_table(steps.new_state, len(i))
        predict = _predict(steps.unclipped_x0, len(i))
        level_after = np.array(solver.level(request, grid, i[1:])).T
        first = solver.level(request, grid, i[:1])
    _check_finite(request, np.concatenate([update.reshape(len(i), -1), predict], axis=1), steps.input_scale)
    return Schedule(
        solver=solver.name,
        timesteps=grid.timesteps[i],
        input_scale=steps.input_scale,
        predict=predict,
        clip=math.inf if steps.unclipped_x0 is None else request.options.clip_sample_range,
        update=update,
        needs_noise=steps.needs_noise,
        start=_start(cut, grid, float(first[0][0]), float(first[1][0])),
        blend=np.concatenate([level_after, [[1.0, 0.0]]]),
        step_index=(i - i[0]) // solver.order if steps.step_index is None else steps.step_index,
        warnings=(*warnings, *grid.warnings),
    )


def _predict(unclipped_x0: Array | None, evaluations: int) -> Array:
    """Return the factors of the latent and of the output in the predicted x0, ``[N, 2]``."""
    if unclipped_x0 is None:
        return np.zeros((evaluations, 2))
    columns = [int(np.flatnonzero(term[:, 0])[0]) for term in (X, OUTPUT)]
    return np.broadcast_to(unclipped_x0, (COLUMNS, evaluations))[columns].T.copy()


def _start(cut: Cut, grid: Grid, signal: float, noise: float) -> tuple[float, float]:
    if cut.denoising_start is not None:
        return 1.0, 0.0
    if cut.strength is not None:
        return signal, noise
    return 0.0, grid.initial_noise


def _choose(config: Mapping[str, object], solver: str | None) -> tuple[Solver, Mapping[str, object]]:
    if solver is not None:
        return find_solver(solver)
    name = config.get("_class_name")
    if not isinstance(name, str):
        raise UsageError("the scheduler config has no _class_name: name a solver")
    return find_solver(name)


def _check_supported(solver: Solver, **settings: object) -> None:
    for name, value in settings.items():
        if value is not None and name not in solver.takes:
            others = ", ".join(other.name for other in SOLVERS.values() if name in other.takes)
            raise UsageError(f"{solver.name} does not take {name} (these do: {others})")


def _checked_steps(
    steps: int | None, timesteps: Sequence[float] | None, sigmas: Sequence[float] | None, limit: int
) -> int | None:
    if sum(value is not None for value in (steps, timesteps, sigmas)) != 1:
        raise UsageError("give exactly one of num_inference_steps, timesteps and sigmas")
    if timesteps is not None and len(timesteps) and timesteps[0] >= limit:
        raise UsageError(f"timestep {timesteps[0]} is beyond the last training timestep {limit - 1}")
    if sigmas is not None and len(sigmas) < 2:
        raise UsageError("sigmas needs at least two entries: where to start, and where the last step ends")
    whole = isinstance(steps, int) and not isinstance(steps, bool)
    if steps is not None and not (whole and 1 <= steps <= limit):
        raise UsageError(f"num_inference_steps must be a whole number from 1 to {limit}, not {steps!r}")
    return steps


def _descending(name: str, values: Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    falling = all(a > b for a, b in itertools.pairwise(numbers))
    if not numbers or not falling or not all(math.isfinite(value) and value >= 0 for value in numbers):
        raise UsageError(f"{name} must be finite, not negative and strictly descending, not {list(values)}")
    return numbers


def _checked_eta(eta: float) -> float:
    if not 0 <= eta <= 1:
        raise UsageError(f"eta must lie between 0 and 1, not {eta}")
    return eta


def _check_finite(request: ScheduleRequest, factors: Array, input_scale: Array) -> None:
    bad = ~(np.isfinite(factors).all(axis=1) & np.isfinite(input_scale))
    if bad.any():
        raise UsageError(
            f"{request.solver}: these options divide by zero at evaluation {int(bad.argmax())} of {len(bad)} "
            f"(prediction_type {request.options.prediction_type!r} at a noise level of zero or infinity, or a step "
            "between equal noise levels); change the spacing, the final sigma or the order"
        )
