"""Image-to-image with latent consistency models: strength shortens the teacher's schedule, not the student's.

The student takes all its steps, on timesteps of the remaining part of the teacher's schedule (diffusers'
``LCMScheduler.set_timesteps`` with ``strength``; arXiv:2310.04378, section 4.3).
"""

import numpy as np

from ...engines.errors import UsageError

__all__ = ["shortened_timesteps"]


def shortened_timesteps(steps: int, strength: float, *, teacher_steps: int, training_steps: int) -> list[float]:
    """Return the student's timesteps, descending.

    Args:
        steps: number of the student's steps.
        strength: share of the teacher's schedule that is run, 0 to 1.
        teacher_steps: ``original_inference_steps``.
        training_steps: ``num_train_timesteps``.

    Raises:
        UsageError: the student has more steps than remain of the teacher's.

    """
    remaining = int(teacher_steps * strength)
    if remaining < steps:
        raise UsageError(
            f"strength={strength} leaves {remaining} of the {teacher_steps} steps of the distillation, fewer than "
            f"num_inference_steps={steps}: use at most {remaining} steps, or raise strength to "
            f"{steps / teacher_steps:g}"
        )
    teacher = np.arange(remaining, 0, -1) * (training_steps // teacher_steps) - 1
    picked = np.floor(np.linspace(0, remaining, steps, endpoint=False)).astype(np.int64)
    return [float(t) for t in teacher[picked]]
