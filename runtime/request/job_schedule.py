"""Makes the schedule of a job from its scheduler, steps, strength and other settings."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...engines.errors import UsageError
from ...engines.scalars import shortened
from ...engines.scheduler_fixes import fixed_scheduler
from ..schedule import Schedule, make_schedule
from ..schedule.choice import choose_scheduler
from ..schedule.consistency import LCM
from ..schedule.distilled import shortened_timesteps
from ..schedule.solver_registry import find_solver
from .job import Job
from .request_checks import inner_share

__all__ = ["schedule_for"]


def schedule_for(job: Job, config: Mapping[str, object], *, strength: float | None) -> Schedule:
    """Make a job's schedule.

    Args:
        job: the job.
        config: the checkpoint's scheduler config.
        strength: the job's; or None for the schedule without an image.

    Raises:
        UsageError: an unknown scheduler or option, or settings that leave no step.

    """
    request = job.request
    choice = choose_scheduler(request.scheduler, request.scheduler_config, config)
    if choice.config is config:  # a config of the request is not corrected
        other = find_solver(choice.solver)[0].name != config.get("_class_name")
        config = fixed_scheduler(config, job.scheduler_fixes, other=other)
    else:
        config = choice.config
    overrides = dict(choice.overrides)
    if request.original_inference_steps is not None:
        overrides["original_inference_steps"] = request.original_inference_steps
    settings: dict[str, Any] = {
        "num_inference_steps": job.steps,
        "timesteps": request.timesteps,
        "sigmas": request.sigmas,
        "strength": strength,
    }
    shortened = job.distilled and strength is not None and job.steps is not None
    if shortened and find_solver(choice.solver)[0] is LCM:
        assert strength is not None and job.steps is not None
        timesteps = _shortened(dict(config) | overrides, job.steps, strength)
        settings |= {"num_inference_steps": None, "timesteps": timesteps, "strength": 1.0}
    else:
        shortened = False
    schedule = make_schedule(
        config,
        solver=choice.solver,
        overrides=overrides,
        denoising_start=inner_share(request.denoising_start),
        denoising_end=inner_share(request.denoising_end),
        eta=request.eta,
        **settings,
    )
    # The schedule warns of custom timesteps; these here were not the user's.
    warnings = choice.warnings + (() if shortened else schedule.warnings)
    return replace(schedule, warnings=warnings)


def _shortened(config: Mapping[str, object], steps: int, strength: float) -> list[float]:
    """Return the timesteps of a latent consistency model's image-to-image; see :mod:`.distilled`."""
    teacher, training = config.get("original_inference_steps", 50), config.get("num_train_timesteps", 1000)
    if not isinstance(teacher, int) or not isinstance(training, int) or not 1 <= teacher <= training:
        raise UsageError(f"original_inference_steps={shortened(teacher)} must be a whole number from 1 to {training}")
    return shortened_timesteps(steps, strength, teacher_steps=teacher, training_steps=training)
