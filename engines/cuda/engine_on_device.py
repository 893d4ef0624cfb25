"""What the engines on a GPU have in common: they use the device from when they are opened until they are closed."""

import contextlib
from collections.abc import Iterator

from ..errors import EngineError
from ..spec import ComponentSpec
from .device import Device, device_of
from .device_memory import DeviceMemory

__all__ = ["EngineOnDevice"]


class EngineOnDevice:
    """Base of the engines on a GPU.

    Attributes:
        spec: of its component.
        memory: the GPU's.
        device: which GPU, for people.

    """

    spec: ComponentSpec
    memory: DeviceMemory
    device: str
    _shared: Device | None

    @contextlib.contextmanager
    def _opening(self, number: int) -> Iterator[Device]:
        """Use a GPU from now on; where the body fails, it is released.

        Raises:
            EngineUnavailableError: there is no driver.
            EngineError: there is no such GPU, or the driver fails.

        """
        device = self._shared = device_of(number)
        self.memory = device.memory
        try:
            yield device
        except BaseException:
            device.release()
            raise
        self.device = f"cuda:{number} ({device.gpu.model})"

    def _open_device(self) -> Device:
        """Return the GPU.

        Raises:
            EngineError: the engine has been closed.

        """
        if self._shared is None:
            raise EngineError(f"{self.spec.name}: this engine has been closed")
        return self._shared

    def close(self) -> None:
        """Release everything on the device; calling it twice is harmless."""
        device, self._shared = self._shared, None
        if device is None:
            return
        with device.held():
            device.synchronize()
            self._release()
        device.release()

    def _release(self) -> None:
        """Release what the engine has on the device; nothing is running there."""
        raise NotImplementedError
