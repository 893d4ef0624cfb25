"""Which GPU this machine has, from the driver."""

import re
from dataclasses import dataclass

from ..errors import EngineError, EngineUnavailableError, SdengineError, UsageError
from .driver import cuda, driver_call

__all__ = ["Gpu", "device_number", "free_memory", "gpu_here", "no_gpu"]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU.

    Attributes:
        generation: compute capability as NVIDIA writes it for compilers: ``sm89``.
        model: the product's name, in letters, digits and hyphens.

    """

    generation: str
    model: str


def device_number(device: str | None) -> int:
    """Return N of ``cuda:N``; None and ``cuda`` are the first GPU.

    Raises:
        UsageError: it is no GPU's name.

    """
    match = re.fullmatch(r"cuda(?::(\d+))?", device or "cuda")
    if match is None:
        raise UsageError(f"device={device!r} is neither cuda nor cuda:N")
    return int(match[1] or 0)


def gpu_here(index: int = 0) -> Gpu | None:
    """Return the GPU of that number, or None where there is no driver or no such GPU.

    Raises:
        EngineError: the driver is there and fails.

    """
    try:
        driver_call("cuInit", 0)
        if index >= driver_call("cuDeviceGetCount"):
            return None
    except EngineUnavailableError:
        return None
    except EngineError as error:
        if "CUDA_ERROR_NO_DEVICE" in str(error):
            return None
        raise
    device = driver_call("cuDeviceGet", index)
    attributes = cuda().CUdevice_attribute
    major, minor = (
        driver_call("cuDeviceGetAttribute", attribute, device)
        for attribute in (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    name = driver_call("cuDeviceGetName", 128, device).split(b"\0")[0].decode()
    model = "-".join("".join(c if c.isalnum() else " " for c in name).split())
    return Gpu(generation=f"sm{major}{minor}", model=model)


def no_gpu() -> str | None:
    """Return why no NVIDIA GPU can be used here, or None."""
    try:
        cuda()
        gpu = gpu_here()
    except SdengineError as error:
        return str(error)
    return "there is no NVIDIA GPU here, or no driver for it" if gpu is None else None


def free_memory(index: int = 0) -> int:
    """Return the bytes that are free on the GPU of that number.

    Raises:
        EngineUnavailableError: there is no driver.
        EngineError: there is no such GPU, or the driver fails.

    """
    driver_call("cuInit", 0)
    device = driver_call("cuDeviceGet", index)
    context = driver_call("cuDevicePrimaryCtxRetain", device)
    try:
        driver_call("cuCtxPushCurrent", context)
        try:
            free, _ = driver_call("cuMemGetInfo")
        finally:
            driver_call("cuCtxPopCurrent")
    finally:
        driver_call("cuDevicePrimaryCtxRelease", device)
    return int(free)
