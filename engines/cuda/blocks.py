"""A GPU's memory in blocks that are reused after they are given back, as allocating waits for the whole device."""

from collections import OrderedDict

from ..errors import EngineError
from .driver import driver_call

__all__ = ["Blocks", "MemoryBlock"]

_MOST_IDLE = 512 << 20
"""Most idle bytes that are held for reuse; beyond them the blocks unused for longest are freed."""


class MemoryBlock:
    """Bytes on the device, given back when nothing refers to them any more.

    All work goes through one stream, so that the next owner's work comes after the last owner's.
    """

    def __init__(self, blocks: "Blocks", address: int, size: int) -> None:
        self._blocks = blocks
        self.address = address
        self.size = size

    def __del__(self) -> None:
        self._blocks.give_back(self.address, self.size)


class Blocks:
    """All memory of a device that is not an engine's own. Its caller holds the device."""

    def __init__(self) -> None:
        self._alive: set[int] = set()
        self._idle: OrderedDict[int, int] = OrderedDict()  # address -> size, longest unused first
        self._closed = False

    def block(self, size: int) -> MemoryBlock:
        """Return at least ``size`` bytes: the smallest idle block that wastes little, or a new one.

        Raises:
            EngineError: the device is out of memory.

        """
        needed = max(size, 1)
        # A copy of the list: blocks may be given back meanwhile, by finalizers in other threads.
        fitting = [(has, address) for address, has in list(self._idle.items()) if needed <= has <= needed + needed // 4]
        if fitting:
            has, address = min(fitting)
            del self._idle[address]
            return MemoryBlock(self, address, has)
        self._trim(_MOST_IDLE)
        return MemoryBlock(self, self.allocate(needed), needed)

    def allocate(self, size: int) -> int:
        """Allocate bytes; if there are none left, free the idle blocks and try again."""
        try:
            address = int(driver_call("cuMemAlloc", size))
        except EngineError:
            if not self._idle:
                raise
            self._trim(0)
            address = int(driver_call("cuMemAlloc", size))
        self._alive.add(address)
        return address

    def free(self, address: int) -> None:
        """Free bytes of :meth:`allocate`."""
        self._alive.discard(address)
        driver_call("cuMemFree", address)

    def give_back(self, address: int, size: int) -> None:
        """Hold a block for reuse. Called from finalizers: it neither locks nor calls the driver."""
        if not self._closed:
            self._idle[address] = size

    def _trim(self, most: int) -> None:
        while self._idle and sum(list(self._idle.values())) > most:
            self.free(self._idle.popitem(last=False)[0])

    def close(self) -> None:
        """Free everything, even blocks that are still referred to: the device's last engine is closed."""
        self._closed = True
        self._idle.clear()
        for address in list(self._alive):
            self.free(address)
