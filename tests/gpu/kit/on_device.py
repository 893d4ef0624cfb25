"""The driver layer: memory, copies, events, captures, threads, a plateau and errors, on a tiny checkpoint."""

import contextlib
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdengine.engines.errors import EngineError
from sdengine.runtime import Pipeline

from .parity import bundles, tasks_of
from .record import Record, Skip
from .setting import Setting

__all__ = ["run"]

_REQUEST = {"height": 64, "width": 96, "num_inference_steps": 4, "output_type": "np"}
_WAITS = ("cuStreamSynchronize", "cuEventSynchronize", "cuCtxSynchronize")
_SLACK = 32 << 20
"""Bytes by which the driver's own account may sway."""


def run(setting: Setting, record: Record) -> None:
    """See the module."""
    if not setting.gpu:
        raise Skip("it is about GPUs")
    future = bundles({"sd1": 1}, setting.tiny)["sd1"]
    number = int(setting.device.partition(":")[2] or 0)
    _memory(record, number)
    _kernels(record, setting.device)
    path = future.result()
    _captures(setting, record, path)
    _waits(setting, record, path)
    _threads(setting, record, path)
    _errors(setting, record, path, number)
    _plateau(setting, record, path, number)


def _memory(record: Record, number: int) -> None:
    from sdengine.engines.cuda.device import device_of

    device = device_of(number)
    memory = device.memory
    rng = np.random.default_rng(0)
    with record.check("copies of every type and size come back"):
        for dtype in (np.float32, np.float16, np.int64, np.uint8):
            for shape in ((1,), (3, 5), (2, 4, 64, 64), (1, 3, 1024, 1024)):
                values = (rng.standard_normal(shape) * 100).astype(dtype)
                there = memory.zeros(shape, dtype)
                assert not memory.read(there).any()
                memory.copy(there, values)
                other = memory.zeros(shape, dtype)
                memory.copy(other, there)
                assert np.array_equal(memory.read(other), values)
                memory.clear(other)
                assert not memory.read(other).any()
    with record.check("sources may change as soon as a copy was asked for"):
        there, values = memory.zeros((64, 1 << 16), np.float32), np.empty((1 << 16,), np.float32)
        for i in range(64):  # more than there are pinned buffers
            values[:] = i
            memory.copy(there[i], values)
        assert (memory.read(there) == np.arange(64, dtype=np.float32)[:, None]).all()
    with record.check("torch sees the same bytes"):
        torch = _torch_on_gpu()
        there = memory.zeros((7, 9), np.float32)
        memory.copy(there, rng.standard_normal((7, 9)).astype(np.float32))
        device.synchronize()
        tensor = torch.as_tensor(there, device=f"cuda:{number}")
        assert tensor.data_ptr() == there.address and np.array_equal(tensor.cpu().numpy(), memory.read(there))
        tensor.mul_(2)
        torch.cuda.synchronize()
        assert np.array_equal(tensor.cpu().numpy(), memory.read(there))
    with record.check("events measure time") as figures:
        big = memory.zeros((256 << 20,), np.uint8), memory.zeros((256 << 20,), np.uint8)
        begin = time.perf_counter()
        start = memory.event()
        for _ in range(20):
            memory.copy(big[0], big[1])
        end = memory.event()
        memory.wait(end)
        around = (time.perf_counter() - begin) * 1e3
        milliseconds = memory.milliseconds(start, end)
        figures["copied_tb_per_s"] = round(20 * 2 * (256 << 20) / milliseconds / 1e9, 2)
        assert 0 < milliseconds < 1.01 * around, around
    with record.check("recorded work is replayed"):
        source, target = memory.zeros((1000,), np.float32), memory.zeros((1000,), np.float32)
        again = memory.capture(lambda: memory.copy(target, source))
        for i in range(5):
            memory.copy(source, np.full((1000,), i, np.float32))
            again()
            assert (memory.read(target) == i).all()
    device.release()


def _kernels(record: Record, device: str) -> None:
    import torch
    import torch.nn.functional as F
    from sdengine.engines.eager.kernels import unavailable

    with record.check("our kernels give what float64 gives") as figures:
        if (reason := unavailable()) is not None:
            raise Skip(reason)
        _torch_on_gpu()
        from sdengine.engines.eager.kernels.add_norm import add_norm
        from sdengine.engines.eager.kernels.geglu import geglu
        from sdengine.engines.eager.kernels.group_norm import group_norm

        def error(value: Any, reference: Any) -> float:
            return float((value.double() - reference).abs().max() / reference.abs().max())

        torch.manual_seed(0)
        for dtype in (torch.float16, torch.bfloat16):
            for shape in ((2, 320, 128, 128), (1, 128, 512, 512), (2, 2560, 32, 32), (3, 40, 9, 7), (1, 64, 1, 1)):
                groups = 32 if shape[1] % 32 == 0 else 8
                x = (torch.randn(shape, device=device) * 3 + 20).to(dtype)
                weight, bias = (torch.randn(shape[1], device=device).to(dtype) for _ in range(2))
                plain = F.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-5)
                value = group_norm(x, groups, weight, bias, 1e-5, silu=True)
                figures[f"group_norm {list(shape)} {dtype}"] = round(error(value, F.silu(plain)), 5)
            x = torch.randn((2, 1024, 2560), device=device).to(dtype)
            halves = x.double().chunk(2, -1)
            figures[f"geglu {dtype}"] = round(error(geglu(x), halves[0] * F.gelu(halves[1])), 5)
            norm = torch.nn.LayerNorm(2560, device=device, dtype=dtype)
            added, value = add_norm(x, x.flip(0), norm)
            reference = F.layer_norm(added.double(), (2560,), norm.weight.double(), norm.bias.double())
            figures[f"add_norm {dtype}"] = round(error(value, reference), 5)
        assert max(figures.values()) < 2**-7, figures


def _torch_on_gpu() -> Any:
    """Return torch, if it finds a GPU; a stand-in for the driver alone is none to it."""
    import torch

    if not torch.cuda.is_available():
        raise Skip("torch finds no GPU here")
    return torch


def _load(setting: Setting, path: Path, **options: Any) -> Pipeline:
    return Pipeline.load(path, **{"engine": "torch", "device": setting.device, "precision": "fp32", **options})


def _captures(setting: Setting, record: Record, path: Path) -> None:
    for cuda_graph in ("step", "loop"):
        with _load(setting, path, cuda_graph="off") as plain, _load(setting, path, cuda_graph=cuda_graph) as captured:
            for task, given in tasks_of("sd1", 1).items():
                with record.check(
                    "captured launches draw what plain ones draw", graph=cuda_graph, task=task
                ) as figures:
                    request: dict[str, Any] = {"prompt": "a red cube", "seed": 5, **_REQUEST, **given}
                    reference = plain(**request).images
                    images = [captured(**request).images for _ in range(3)]  # plain, captured, replayed
                    figures["bit_equal"] = all(np.array_equal(image, reference) for image in images)
                    figures["largest_difference"] = max(float(np.abs(image - reference).max()) for image in images)
                    assert figures["largest_difference"] < 1e-3


@contextlib.contextmanager
def _counted() -> Iterator[dict[str, int]]:
    """Count the driver's calls that wait."""
    from cuda.bindings import driver

    counts = dict.fromkeys(_WAITS, 0)
    real = {name: getattr(driver, name) for name in _WAITS}

    def counting(name: str) -> Any:
        def call(*args: Any) -> Any:
            counts[name] += 1
            return real[name](*args)

        return call

    for name in _WAITS:
        setattr(driver, name, counting(name))
    try:
        yield counts
    finally:
        for name in _WAITS:
            setattr(driver, name, real[name])


def _waits(setting: Setting, record: Record, path: Path) -> None:
    def waits(pipe: Pipeline, steps: int) -> dict[str, int]:
        pipe("a red cube", seed=0, **_REQUEST | {"num_inference_steps": steps})
        with _counted() as counts:
            pipe("a red cube", seed=0, **_REQUEST | {"num_inference_steps": steps})
        return counts

    for cuda_graph in ("off", "step", "loop"):
        with (
            record.check("waits do not grow with steps", graph=cuda_graph),
            _load(setting, path, cuda_graph=cuda_graph) as pipe,
        ):
            assert waits(pipe, 24) == waits(pipe, 4)
    with record.check("torch waits for nothing inside a step"), _load(setting, path, cuda_graph="off") as pipe:
        torch = _torch_on_gpu()
        pipe("a red cube", seed=0, **_REQUEST)
        torch.cuda.set_sync_debug_mode("error")
        try:
            pipe("a red cube", seed=0, **_REQUEST)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _threads(setting: Setting, record: Record, path: Path) -> None:
    with _load(setting, path) as first, _load(setting, path) as second:
        alone = {seed: first("a red cube", seed=seed, **_REQUEST).images for seed in range(8)}
        for name, pipes in (("one", (first, first)), ("two", (first, second))):
            with record.check("two threads draw what each draws alone", pipelines=name), ThreadPoolExecutor(2) as pool:

                def work(job: tuple[Pipeline, int]) -> bool:
                    pipe, index = job
                    drawn = {seed: pipe("a red cube", seed=seed, **_REQUEST).images for seed in range(index, 8, 2)}
                    return all(np.array_equal(image, alone[seed]) for seed, image in drawn.items())

                assert all(pool.map(work, zip(pipes, (0, 1), strict=True)))


def _errors(setting: Setting, record: Record, path: Path, number: int) -> None:
    from sdengine.engines.cuda.device import device_of

    with record.check("out of memory is said, and what comes after works"):
        device = device_of(number)
        try:
            with pytest.raises(EngineError, match="OUT_OF_MEMORY"):
                device.memory.zeros((1 << 45,), np.uint8)
        finally:
            device.release()
        with _load(setting, path) as pipe:
            assert np.isfinite(pipe("a red cube", seed=0, **_REQUEST).images).all()
    with record.check("a GPU that is not there is named"), pytest.raises(EngineError, match="99"):
        _load(setting, path, device="cuda:99")
    with record.check("an interrupted image leaves the pipeline usable"), _load(setting, path) as pipe:
        reference = pipe("a red cube", seed=0, **_REQUEST).images

        def fail(*_: Any) -> None:
            raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            pipe("a red cube", seed=0, callback_on_step_end=fail, **_REQUEST)
        assert np.array_equal(pipe("a red cube", seed=0, **_REQUEST).images, reference)


def _plateau(setting: Setting, record: Record, path: Path, number: int) -> None:
    from sdengine.engines.cuda.gpu import free_memory

    requests = 200 if setting.scale == "full" else 12
    choose = random.Random(0)
    free = []
    with record.check("memory reaches a plateau over mixed requests") as figures, _load(setting, path) as pipe:
        tasks = list(tasks_of("sd1", 1).values())
        started = time.perf_counter()
        for request in range(requests):
            given = {**_REQUEST, **choose.choice(tasks), "num_inference_steps": choose.randint(2, 6)}
            pipe("a red cube", seed=request, **given)
            free.append(free_memory(number))
        third = len(free) // 3
        figures |= {"requests": requests, "seconds_drawing": round(time.perf_counter() - started, 1)}
        figures |= {"least_free_mib": min(free) >> 20, "last_free_mib": free[-1] >> 20}
        assert min(free[-third:]) >= min(free[: 2 * third]) - _SLACK
    with record.check("opening and closing gives everything back") as figures:
        free = []
        for _ in range(6 if setting.scale == "full" else 3):
            with _load(setting, path) as pipe:
                pipe("a red cube", seed=0, **_REQUEST)
            free.append(free_memory(number))
        figures["free_mib_after_each"] = [each >> 20 for each in free]
        assert free[-1] >= free[1] - _SLACK
