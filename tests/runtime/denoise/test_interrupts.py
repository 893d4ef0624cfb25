"""Stopping a call from its callback, as in diffusers; attributes that a Pipeline does not have."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.runtime.denoise.interrupts import Interrupts

from ..parity.oracle import oracle, ours, psnr, their_warnings

SETTINGS: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 5, "height": 64, "width": 72, "output_type": "np"}


def stopping(at: int, seen: list[int]) -> Callable[..., dict[str, Any]]:
    def callback(pipeline: Any, i: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(i)
        if i == at:
            pipeline._interrupt = True
        return tensors

    return callback


@pytest.mark.parametrize("at", [0, 2, 4])
def test_what_there_is_gets_decoded(at: int) -> None:
    theirs: list[int] = []
    mine: list[int] = []
    generator = torch.Generator().manual_seed(5)
    with their_warnings():
        expected = oracle("sdxl", "text")(**SETTINGS, generator=generator, callback_on_step_end=stopping(at, theirs))
    pipe = ours("sdxl")
    result = pipe(**SETTINGS, seed=5, callback_on_step_end=stopping(at, mine))
    assert mine == theirs == list(range(at + 1))
    assert psnr(expected.images, result.images) > 80
    assert f"interrupted after {at + 1} of 5 evaluations" in result.warnings
    whole = pipe(**SETTINGS, seed=5)  # the next call is not stopped
    assert not [warning for warning in whole.warnings if "interrupted" in warning]
    assert (psnr(whole.images, result.images) > 80) == (at == 4)


def test_images_that_have_not_been_begun_are_their_noise() -> None:
    pipe = ours("sdxl")  # draws four at once
    settings = {**SETTINGS, "output_type": "latent", "num_images_per_prompt": 6, "seed": 3}
    noise = torch.stack([torch.randn(4, 8, 9, generator=torch.Generator().manual_seed(3 + i)) for i in range(6)])
    found = pipe(**settings, callback_on_step_end=stopping(0, [])).images
    ratio = found[4:] / noise[4:].numpy()
    assert np.allclose(ratio, ratio.mean(), rtol=1e-4), "scaled noise"
    assert not np.allclose(found[:4], noise[:4].numpy() * ratio.mean(), rtol=1e-2)


def test_only_the_callbacks_own_call_is_asked() -> None:
    interrupts, inside, done = Interrupts(), threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        with interrupts.call():
            inside.set()
            done.wait(10)
            seen.append(interrupts.requested)

    for from_outside in (False, True):
        thread = threading.Thread(target=other)
        inside.clear(), done.clear()
        thread.start()
        inside.wait(10)
        if from_outside:
            interrupts.requested = True
        else:
            with interrupts.call():
                interrupts.requested = True
                assert interrupts.requested
        done.set()
        thread.join()
    assert seen == [False, True]
    assert not interrupts.requested


@pytest.mark.parametrize("name", ["_interupt", "scheduler", "safety_checker", "unet"])
def test_other_attributes_are_errors(name: str) -> None:
    message = {"_interupt": "did you mean '_interrupt'", "scheduler": "give it to the call"}.get(
        name, "has no attribute"
    )
    with pytest.raises(UsageError, match=message):
        setattr(ours("sdxl"), name, None)
    with pytest.raises(AttributeError, match=message):
        setattr(ours("sdxl"), name, None)
