"""Pictures are torch's, whatever is captured."""

from typing import Any

import numpy as np
import pytest
from sdengine.runtime import Pipeline

from .setting import Setting, psnr

pytestmark = pytest.mark.gpu

DECIBELS = {"fp16": 30.0, "fp32": 45.0}


def test_every_size_looks_as_torch_draws_it(setting: Setting, report: Any) -> None:
    with setting.pipeline() as pipe, Pipeline.load(setting.path, engine="torch", precision="fp32") as torch:
        for height, width in setting.sizes:
            for seed in range(3):
                size = {"height": height, "width": width, "num_inference_steps": 10}
                found = psnr(setting.draw(pipe, seed, **size), setting.draw(torch, seed, **size))
                report("PSNR to torch in float32, dB", engine=setting.engine, size=[height, width], psnr=found)
                assert found > DECIBELS[setting.precision]


def test_all_components_run_on_the_engine(setting: Setting) -> None:
    with setting.pipeline() as pipe:
        height, width = setting.sizes[0]
        result = pipe("a red cube", seed=0, height=height, width=width, num_inference_steps=1)
        assert set(result.engines.values()) == {setting.engine} and result.fallbacks == ()


@pytest.mark.parametrize("cuda_graph", ["step", "loop"])
def test_captured_launches_draw_what_plain_ones_draw(setting: Setting, cuda_graph: str) -> None:
    with setting.pipeline(cuda_graph="off") as plain, setting.pipeline(cuda_graph=cuda_graph) as captured:
        for seed in range(3):  # plain, captured, replayed
            assert np.array_equal(setting.draw(captured, seed), setting.draw(plain, seed))


@pytest.mark.parametrize("scheduler", ["euler_a", "dpmpp_2m", "unipc"])
def test_schedulers_need_no_other_graph(setting: Setting, scheduler: str) -> None:
    with setting.pipeline() as pipe:
        first = setting.draw(pipe, 7, scheduler=scheduler)
        assert np.isfinite(first).all() and np.array_equal(setting.draw(pipe, 7, scheduler=scheduler), first)


def test_a_batch_draws_what_its_pictures_are_alone(setting: Setting) -> None:
    with setting.pipeline() as pipe:
        both = setting.draw(pipe, 3, num_images_per_prompt=2)
        alone = np.concatenate([setting.draw(pipe, seed) for seed in (3, 4)])
    assert psnr(both, alone) > DECIBELS[setting.precision]
