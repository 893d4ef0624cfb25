"""Calls a callback after a step with the tensors that the request names, and applies its changes to the samples."""

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
    """Call a callback as diffusers does, and use the tensors that it returns.

    Args:
        components: the engines, which run the conditioner again if embeddings change.
        callback: the function.
        names: the names of the tensors that it gets.
        step: the samples after the step.
        pipeline: its first argument.
        guidance: through which it may set the guidance scale.
        warnings: gets a warning for each returned tensor that has no effect.

    Raises:
        UsageError: a tensor does not exist in this call, or was changed to something impossible.

    """
    samples, first = step.samples, step.samples[0]
    current = {name: _current(name, samples) for name in names}
    tensors = {name: None if value is None else value.copy() for name, value in current.items()}
    scale = first.guidance_scale
    with contextlib.ExitStack() as setting:
        if first.components[-1] == DENOISER:  # the guidance of a prior cannot be changed
            setting.enter_context(guidance.of_step(scale))
        returned = dict(callback(pipeline, first.position - 1, first.timestep, tensors) or {})
        scale = guidance.scale if first.components[-1] == DENOISER else scale
    latents = returned.pop("latents", None)
    for name in returned:
        if name not in (*TEXT, *NEGATIVE):
            raise UsageError(
                f"callback_on_step_end returned {name}, which cannot be changed; latents and {', '.join(TEXT)} can"
            )
        if name in NEGATIVE and not _same(returned[name], _current(name, samples)):
            warnings.append(f"callback_on_step_end: {name} has no effect, as in diffusers: {NEGATIVE[name]} has both")
    if latents is not None:
        _set_latents(samples, latents)
    unfinished = [sample for sample in samples if not sample.finished]
    if unfinished:
        texts = {name: value for name, value in returned.items() if name in TEXT and value is not None}
        _change(components, unfinished, samples, texts, scale)


def _current(name: str, samples: Sequence[Sample]) -> F32 | None:
    """Return a tensor of all samples as in diffusers, with the rows of negative prompts first; None if it has no rows.

    Raises:
        UsageError: this call has no tensor of that name.

    """
    if name == "latents":
        return np.stack([sample.latent for sample in samples])
    of_all_rows = NEGATIVE.get(name, name)
    text = samples[0].text
    if TEXT[of_all_rows] not in text:
        available = ["latents", *(name for name, input_name in TEXT.items() if input_name in text)]
        raise UsageError(
            f"callback_on_step_end_tensor_inputs: there is no {name} in this call, only {', '.join(available)}"
        )
    rows = range(samples[0].rows)
    if name in NEGATIVE:
        rows = range(samples[0].rows - 1)
    arrays = [sample.text[TEXT[of_all_rows]][row] for row in rows for sample in samples]
    return np.stack(arrays) if arrays else None


def _same(value: Any, current: F32 | None) -> bool:
    return (value is None and current is None) or (current is not None and np.array_equal(value, current))


def _set_latents(samples: Sequence[Sample], latents: F32) -> None:
    shape = (len(samples), *samples[0].latent.shape)
    if np.shape(latents) != shape:
        raise UsageError(f"callback_on_step_end returned latents of shape {list(np.shape(latents))}, not {list(shape)}")
    for sample, latent in zip(samples, latents, strict=True):
        sample.latent = latent


def _change(
    components: Components,
    unfinished: Sequence[Sample],
    samples: Sequence[Sample],
    texts: Mapping[str, F32],
    scale: float,
) -> None:
    """Change the guidance and the embeddings of the samples that are not finished.

    Args:
        components: the engines.
        unfinished: those of the samples that change.
        samples: all samples that the callback was called for.
        texts: the tensors that it returned, by diffusers' names.
        scale: the guidance scale from now on.

    """
    rows_before, same_scale = samples[0].rows, scale == samples[0].guidance_scale
    rows = rows_before if same_scale else 2 if scale > 1 and rows_before == 2 else 1
    if scale > 1 and rows_before == 1 and not same_scale:
        raise UsageError(
            f"_guidance_scale = {scale:g}: guidance cannot be switched on in a call that has begun without it"
        )
    changed: dict[Sample, dict[str, F32]] = {}
    for name, value in texts.items():
        for sample, array in zip(samples, _by_sample(name, value, samples, rows), strict=True):
            if not np.array_equal(array, sample.text[TEXT[name]][-rows:]):
                changed.setdefault(sample, {})[TEXT[name]] = array
    if not changed and same_scale:
        return
    batches = [sample._batch for sample in unfinished]
    for sample, batch in zip(unfinished, batches, strict=True):
        if batch is not None:
            batch.take(sample)
    for sample, batch in zip(unfinished, batches, strict=True):
        if rows < rows_before:
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
    count, rows_before = len(samples), samples[0].rows
    if rows < rows_before and value.shape[:1] == (rows_before * count,) and _same(value, _current(name, samples)):
        value = value[-count:]  # guidance was switched off, but the rows of negative prompts were not removed
    shape = (rows * count, *samples[0].text[TEXT[name]].shape[1:])
    if value.shape != shape:
        without_negative = rows == 2 and value.shape[:1] == (count,)
        advice = ": with fewer rows, set pipe._guidance_scale = 0.0, too" if without_negative else ""
        raise UsageError(
            f"callback_on_step_end returned {name} of shape {list(value.shape)}, {list(shape)} is needed{advice}"
        )
    return [value[i::count] for i in range(count)]


def _drop_negative_row(components: Components, sample: Sample) -> None:
    """Remove a sample's row of the negative prompt."""

    def is_by_row(component: str, name: str) -> bool:
        return components.spec(component).input(name).owner == "row"

    sample.inputs = {
        component: {name: buffer[-1:] if is_by_row(component, name) else buffer for name, buffer in buffers.items()}
        for component, buffers in sample.inputs.items()
    }
    sample.numbers = {
        component: {name: array[:, -1:] if is_by_row(component, name) else array for name, array in arrays.items()}
        for component, arrays in sample.numbers.items()
    }
    sample.text = {name: array[-1:] for name, array in sample.text.items()}
    sample.rows = 1


def _encode_again(components: Components, sample: Sample, changed: Mapping[str, F32]) -> None:
    """Run the conditioners again for embeddings that have changed."""
    sample.text = {**sample.text, **changed}
    memory = components.memory_of(*sample.components)
    inputs: dict[str, dict[str, Buffer]] = {name: dict(buffers) for name, buffers in sample.inputs.items()}
    for component in sample.components:
        text = {name: np.ascontiguousarray(array) for name, array in sample.text.items()}
        inputs[component] |= components.run_into(memory, conditioner_of(component), text)
    sample.inputs = inputs


def _guide(sample: Sample, scale: float) -> None:
    """Set a sample's guidance scale for the evaluations that follow."""
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
