"""Calls a callback after a step with the tensors that it asked for, and obeys what it changes in them."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.errors import UsageError
from ..engines.memory import Buffer
from .conditioning.text import conditioner_of
from .denoise import Sample, Step
from .denoise.guidance import guidance_for
from .denoise.guidance_change import GuidanceChange
from .denoise.sample import DENOISER
from .open_engines import Components
from .request.callback_tensors import NEGATIVE, TEXT

__all__ = ["call_back"]

F32 = NDArray[np.float32]


def call_back(
    components: Components,
    callback: Callable[..., Mapping[str, Any] | None],
    names: Sequence[str],
    step: Step,
    *,
    pipeline: Any,
    guidance: GuidanceChange,
    warnings: list[str],
) -> None:
    """Call a callback as diffusers does, and go on with what it returns.

    Args:
        components: the engines, for embeddings that it changes.
        callback: the function.
        names: of the tensors that it is given.
        step: the samples after the step.
        pipeline: its first argument.
        guidance: where it may set the guidance scale.
        warnings: gets what has no effect.

    Raises:
        UsageError: a tensor does not exist in this call, or cannot be what it was changed to.

    """
    samples, first = step.samples, step.samples[0]
    shown = {name: _shown(name, samples) for name in names}
    given = {name: None if value is None else value.copy() for name, value in shown.items()}
    scale = first.guidance_scale
    with contextlib.ExitStack() as setting:
        if first.components[-1] == DENOISER:  # a prior's guidance stays as it is
            setting.enter_context(guidance.of_step(scale))
        returned = dict(callback(pipeline, first.position - 1, first.timestep, given) or {})
        scale = guidance.scale if first.components[-1] == DENOISER else scale
    latents = returned.pop("latents", None)
    for name in returned:
        if name not in (*TEXT, *NEGATIVE):
            raise UsageError(
                f"callback_on_step_end returned {name}, which cannot be changed; latents and {', '.join(TEXT)} can"
            )
        if name in NEGATIVE and not _same(returned[name], _shown(name, samples)):
            warnings.append(f"callback_on_step_end: {name} has no effect, as in diffusers: {NEGATIVE[name]} has both")
    if latents is not None:
        _set_latents(samples, latents)
    left = [sample for sample in samples if not sample.finished]
    if left:
        texts = {name: value for name, value in returned.items() if name in TEXT and value is not None}
        _go_on_with(components, left, samples, texts, scale)


def _shown(name: str, samples: Sequence[Sample]) -> F32 | None:
    """Return a tensor of all samples, as diffusers has it: rows of negative prompts first.

    Raises:
        UsageError: there is none in this call.

    """
    if name == "latents":
        return np.stack([sample.latent for sample in samples])
    whole = NEGATIVE.get(name, name)
    text = samples[0].text
    if TEXT[whole] not in text:
        there = ["latents", *(name for name, own in TEXT.items() if own in text)]
        raise UsageError(
            f"callback_on_step_end_tensor_inputs: there is no {name} in this call, only {', '.join(there)}"
        )
    rows = range(samples[0].rows)
    if name in NEGATIVE:
        rows = range(samples[0].rows - 1)
    arrays = [sample.text[TEXT[whole]][row] for row in rows for sample in samples]
    return np.stack(arrays) if arrays else None


def _same(value: Any, shown: F32 | None) -> bool:
    return (value is None and shown is None) or (shown is not None and np.array_equal(value, shown))


def _set_latents(samples: Sequence[Sample], latents: F32) -> None:
    shape = (len(samples), *samples[0].latent.shape)
    if np.shape(latents) != shape:
        raise UsageError(f"callback_on_step_end returned latents of shape {list(np.shape(latents))}, not {list(shape)}")
    for sample, latent in zip(samples, latents, strict=True):
        sample.latent = latent


def _go_on_with(
    components: Components,
    left: Sequence[Sample],
    samples: Sequence[Sample],
    texts: Mapping[str, F32],
    scale: float,
) -> None:
    """Change guidance and embeddings of the samples that are not finished."""
    before, same = samples[0].rows, scale == samples[0].guidance_scale
    rows = before if same else 2 if scale > 1 and before == 2 else 1
    if scale > 1 and before == 1 and not same:
        raise UsageError(
            f"_guidance_scale = {scale:g}: guidance cannot be switched on in a call that has begun without it"
        )
    changed: dict[Sample, dict[str, F32]] = {}
    for name, value in texts.items():
        of_samples = _by_sample(name, value, samples, rows)
        for sample, own in zip(samples, of_samples, strict=True):
            if not np.array_equal(own, sample.text[TEXT[name]][-rows:]):
                changed.setdefault(sample, {})[TEXT[name]] = own
    if not changed and same:
        return
    batches = [sample._batch for sample in left]
    for sample, batch in zip(left, batches, strict=True):
        if batch is not None:
            batch.take(sample)
    for sample, batch in zip(left, batches, strict=True):
        if rows < before:
            _drop_negative_row(components, sample)
        if sample in changed:
            _encode_again(components, sample, changed[sample])
        _guide(sample, scale)
        if batch is not None:
            batch.put(sample)


def _by_sample(name: str, value: F32, samples: Sequence[Sample], rows: int) -> list[F32]:
    """Divide a tensor that a callback returned among the samples, ``[rows, ...]`` each.

    Raises:
        UsageError: it has another shape than is needed.

    """
    count, before = len(samples), samples[0].rows
    if rows < before and value.shape[:1] == (before * count,) and _same(value, _shown(name, samples)):
        value = value[-count:]  # guidance was switched off, and the negative rows were left in
    shape = (rows * count, *samples[0].text[TEXT[name]].shape[1:])
    if value.shape != shape:
        off = rows == 2 and value.shape[:1] == (count,)
        hint = ": with fewer rows, set pipe._guidance_scale = 0.0, too" if off else ""
        raise UsageError(
            f"callback_on_step_end returned {name} of shape {list(value.shape)}, {list(shape)} is needed{hint}"
        )
    return [value[i::count] for i in range(count)]


def _drop_negative_row(components: Components, sample: Sample) -> None:
    """Leave a sample the row of its prompt alone."""

    def rows_of(component: str, name: str) -> bool:
        return components.spec(component).input(name).owner == "row"

    sample.inputs = {
        component: {name: buffer[-1:] if rows_of(component, name) else buffer for name, buffer in buffers.items()}
        for component, buffers in sample.inputs.items()
    }
    sample.numbers = {
        component: {name: array[:, -1:] if rows_of(component, name) else array for name, array in arrays.items()}
        for component, arrays in sample.numbers.items()
    }
    sample.text = {name: array[-1:] for name, array in sample.text.items()}
    sample.rows = 1


def _encode_again(components: Components, sample: Sample, changed: Mapping[str, F32]) -> None:
    """Compute what follows from embeddings that have changed."""
    sample.text = {**sample.text, **changed}
    memory = components.memory_of(*sample.components)
    inputs: dict[str, dict[str, Buffer]] = {name: dict(buffers) for name, buffers in sample.inputs.items()}
    for component in sample.components:
        given = {name: np.ascontiguousarray(array) for name, array in sample.text.items()}
        inputs[component] |= components.run_into(memory, conditioner_of(component), given)
    sample.inputs = inputs


def _guide(sample: Sample, scale: float) -> None:
    job = sample.job
    guidance = guidance_for(
        scale,
        evaluations=sample.evaluations,
        rescale=0.0 if job is None else job.request.guidance_rescale,
        guided=sample.rows == 2,
    )
    numbers = {**sample.numbers[DENOISER], "mix": guidance.mix, "rescale": guidance.rescale}
    sample.numbers = {**sample.numbers, DENOISER: numbers}
    sample.guidance_scale = scale
