"""Which GPU is here, asked of the driver."""

from dataclasses import dataclass
from typing import Any

from ..errors import EngineError

__all__ = ["Gpu", "gpu_here"]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU.

    Attributes:
        generation: compute capability as NVIDIA writes it for compilers: ``sm89``.
        model: the product's name, in letters, digits and hyphens.

    """

    generation: str
    model: str


def gpu_here(index: int = 0) -> Gpu | None:
    """Return the GPU of that number, or None where there is no driver or no such GPU.

    Raises:
        EngineError: the driver is there and fails.

    """
    try:
        from cuda.bindings import driver
    except ImportError:
        return None
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError:  # cuda-bindings found no libcuda
        return None
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        return None
    _checked((status,), "cuInit")
    if index >= _checked(driver.cuDeviceGetCount(), "cuDeviceGetCount"):
        return None
    device = _checked(driver.cuDeviceGet(index), "cuDeviceGet")
    attributes = driver.CUdevice_attribute
    major, minor = (
        _checked(driver.cuDeviceGetAttribute(attribute, device), "cuDeviceGetAttribute")
        for attribute in (
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    name = _checked(driver.cuDeviceGetName(128, device), "cuDeviceGetName").split(b"\0")[0].decode()
    model = "-".join("".join(c if c.isalnum() else " " for c in name).split())
    return Gpu(generation=f"sm{major}{minor}", model=model)


def _checked(returned: tuple[Any, ...], call: str) -> Any:
    status, *values = returned
    if int(status) != 0:
        raise EngineError(f"the CUDA driver's {call} failed: {status.name}")
    return values[0] if values else None
