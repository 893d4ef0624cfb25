"""CUDA's driver API: every call goes through one function that turns a status into an error."""

from typing import Any

from ..errors import EngineError, EngineUnavailableError
from ..install_hint import install_hint

__all__ = ["cuda", "driver_call"]


def cuda() -> Any:
    """Return ``cuda.bindings.driver``.

    Raises:
        EngineUnavailableError: the package is not installed.

    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EngineUnavailableError(f"cuda-bindings is not installed; {install_hint('tensorrt')}") from error
    return driver


def driver_call(name: str, *arguments: Any) -> Any:
    """Call the driver; return its results, without the status.

    Raises:
        EngineUnavailableError: there is no driver.
        EngineError: the call failed.

    """
    try:
        status, *values = getattr(cuda(), name)(*arguments)
    except RuntimeError as error:  # cuda-bindings found no libcuda, or one without this function
        raise EngineUnavailableError(f"the NVIDIA driver cannot be used ({name}): {error}") from error
    if int(status) != 0:
        text = f"the CUDA driver's {name} failed: {status.name}"
        if status.name == "CUDA_ERROR_OUT_OF_MEMORY" and name.startswith("cuMem"):
            text += f" ({arguments[0] / 2**20:.0f} MiB were requested); generate smaller or fewer images at once"
        raise EngineError(text)
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)
