"""The machine's matrix-product peak: the most floating-point operations a second that torch or OpenVINO reaches.

Several shapes (square ones and those of these networks), each in both libraries, the least time of ten; in a process of
its own, when the contenders have ended.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from worker import tell

_SHAPES = ((2048, 2048, 2048), (4096, 4096, 4096), (4096, 1280, 1280), (8192, 320, 2880), (2048, 640, 2560))
_TIMES = 10


def _least(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_TIMES):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def _products(dtype: str, m: int, n: int, k: int) -> Iterator[Callable[[], object]]:
    kind = getattr(torch, dtype)
    a, b = torch.randn(m, k).to(kind), torch.randn(n, k).to(kind)
    yield lambda: torch.nn.functional.linear(a, b)
    element = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    x = ops.parameter([m, k], getattr(openvino.Type, element), name="x")
    weights = ops.constant(np.random.default_rng(0).standard_normal((n, k)).astype(np.float32))
    product = ops.matmul(ops.convert(x, "f32"), weights, False, True)
    model = openvino.Model([ops.convert(product, element)], [x], "product")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": element})
    request = compiled.create_infer_request()
    request.infer()
    yield lambda: request.infer(share_outputs=True)


def _best(dtype: str) -> float:
    """GFLOP/s."""
    return max(2 * m * n * k / _least(call) / 1e9 for m, n, k in _SHAPES for call in _products(dtype, m, n, k))


def _peaks(job: dict[str, Any]) -> dict[str, float]:
    torch.set_num_threads(job["threads"])
    with torch.inference_mode():
        return {dtype: _best(dtype) for dtype in ("bfloat16", "float32")}


tell(_peaks)
