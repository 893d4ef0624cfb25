"""The options of every solver, with defaults filled in before a schedule is computed.

Names, defaults and choices are those of the diffusers schedulers, so that a checkpoint's ``scheduler_config.json``
and what users pass to ``from_config`` mean the same here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import numpy as np

from ...engines.errors import UsageError, nearest

__all__ = ["BETAS", "OptionTable", "SolverOptions", "resolve_options"]


Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class SolverOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of all solvers; a solver reads those that it has."""

    # the noise levels the checkpoint was trained with
    num_train_timesteps: Count = 1000
    beta_start: Share = 0.0001
    beta_end: Share = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    # what its network returns
    prediction_type: str = "epsilon"
    variance_type: str | None = None
    # which of the levels are visited
    timestep_spacing: str = "linspace"
    timestep_type: str = "discrete"
    interpolation_type: str = "linear"
    steps_offset: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_lu_lambdas: bool = False
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None
    sigma_data: Positive = 0.5
    sigma_schedule: str = "karras"
    rho: Positive = 7.0
    final_sigmas_type: str = "zero"
    lambda_min_clipped: float = -float("inf")
    set_alpha_to_one: bool = True
    original_inference_steps: Count = 50
    timestep_scaling: Positive = 10.0
    # how a step is taken
    solver_order: int = 2
    solver_type: str = ""
    algorithm_type: str = ""
    lower_order_final: bool = True
    euler_at_final: bool = False
    skip_prk_steps: bool = False
    predict_x0: bool = True
    clip_sample: bool = False
    clip_sample_range: Positive = 1.0
    disable_corrector: tuple[int, ...] = ()


BETAS: Mapping[str, object] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
}
"""Options that describe the noise of training, which most schedulers have, with their usual defaults."""

_REFUSED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "thresholding": (
        (False,),
        "clips the predicted image at a quantile of its values, which no table of factors can do",
    ),
    "use_flow_sigmas": ((False,), "is for flow-matching checkpoints, which are not Stable Diffusion 1, 2 or XL"),
    "use_dynamic_shifting": ((False,), "is for flow-matching checkpoints, which are not Stable Diffusion 1, 2 or XL"),
    "shift_terminal": ((None,), "is for flow-matching checkpoints, which are not Stable Diffusion 1, 2 or XL"),
    "solver_p": ((None,), "replaces the predictor by another scheduler object, which a config cannot describe"),
    "noise_sampler_seed": ((None,), "seeds the noise of every image alike; give each image its seed instead"),
}
"""Options that exist in diffusers and are refused here, but for the values listed, with the reason."""

_USUAL_CHOICES: Mapping[str, tuple[object, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "prediction_type": ("epsilon", "sample", "v_prediction"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "sigma_schedule": ("karras", "exponential"),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
"""Values of options that most solvers accept."""

_INERT = frozenset({"dynamic_thresholding_ratio", "flow_shift", "sample_max_value", "time_shift_type"})
"""Options that have a meaning only together with a refused one."""


@dataclass(frozen=True, kw_only=True)
class OptionTable:
    """The options of one solver.

    Attributes:
        defaults: all options that its diffusers class has, with their defaults.
        choices: for options whose values depend on the solver, those that it accepts.
        synonyms: values of *other* solvers that a checkpoint's config may hold, and those that replace them here.
        unused: options that its diffusers class has and does not use.

    """

    defaults: Mapping[str, object]
    choices: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    synonyms: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()


def resolve_options(
    solver: str, table: OptionTable, config: Mapping[str, object], overrides: Mapping[str, object]
) -> SolverOptions:
    """Merge a solver's defaults, the checkpoint's config and the request's overrides; later ones replace earlier ones.

    This is ``Scheduler.from_config(config, **overrides)`` of diffusers: keys of the config that the solver does not
    have are ignored, since a checkpoint's config is used for every solver.

    Raises:
        UsageError: an override the solver does not have, a value of the wrong type or outside its choices, or a
            value that works in diffusers only (thresholding, learned variance, flow matching).

    """
    for name in overrides:
        if name not in table.defaults:
            known = ", ".join(sorted(table.defaults))
            raise UsageError(f"{solver} has no option {name!r}{nearest(name, table.defaults)} (it has {known})")
    values = dict(table.defaults)
    defaulted = config.get("_use_default_values")  # in a scheduler object's config: keys that nobody set
    ignored = defaulted if isinstance(defaulted, list | tuple) else ()
    for name, value in config.items():
        if name in values and name not in ignored:
            synonyms = table.synonyms.get(name, {})
            values[name] = synonyms.get(value, value) if isinstance(value, str) else value
    values.update(overrides)
    # None stands for the default: diffusers types its flags "bool | None", and configs carry nulls between classes
    values = {name: table.defaults[name] if value is None else value for name, value in values.items()}
    _refuse(solver, table, values)
    values = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
    values = {name: _whole(value) if type(table.defaults[name]) is int else value for name, value in values.items()}
    used = {name: value for name, value in values.items() if name not in _REFUSED and name not in _INERT}
    return _converted(solver, used)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse(solver: str, table: OptionTable, values: dict[str, object]) -> None:
    for name, value in values.items():
        if name in _REFUSED:
            allowed, reason = _REFUSED[name]
            if (bool(value) if allowed == (False,) else value) not in allowed:
                raise UsageError(f"{solver}: {name}={value!r} {reason}; pass {name}={allowed[0]!r}")
        if name == "variance_type" and value in ("learned", "learned_range"):
            raise UsageError(f"{solver}: {name}={value!r} needs a variance from the network, which solvers do not get")
        choices = table.choices.get(name, _USUAL_CHOICES.get(name))
        if choices is not None and value not in choices:
            suggestion = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
            raise UsageError(f"{solver}: {name}={value!r} is not one of {', '.join(map(repr, choices))}{suggestion}")


def _converted(solver: str, values: dict[str, object]) -> SolverOptions:
    try:
        return msgspec.convert(values, SolverOptions)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        raise UsageError(f"{solver}: {place.rstrip('`')}: {problem[0].lower()}{problem[1:]}") from error
