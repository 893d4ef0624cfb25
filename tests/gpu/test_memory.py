"""Memory does not grow with the number of requests."""

import random
from typing import Any

import pytest
from sdengine.engines.cuda.gpu import free_memory

from .setting import Setting

pytestmark = pytest.mark.gpu

SLACK = 32 << 20
"""Bytes by which the driver's own account may sway."""


def test_many_mixed_requests_reach_a_plateau(setting: Setting, report: Any) -> None:
    choose = random.Random(0)
    free = []
    with setting.pipeline() as pipe:
        for request in range(setting.requests):
            height, width = choose.choice(setting.sizes)
            settings = {"height": height, "width": width, "num_inference_steps": choose.randint(1, 6)}
            settings |= {"num_images_per_prompt": choose.randint(1, 2), "guidance_scale": choose.choice([1.0, 5.0])}
            setting.draw(pipe, request, **settings)
            free.append(free_memory())
    third = len(free) // 3
    report("free device memory, MiB", engine=setting.engine, least=min(free) >> 20, last=free[-1] >> 20)
    assert min(free[-third:]) >= min(free[: 2 * third]) - SLACK
