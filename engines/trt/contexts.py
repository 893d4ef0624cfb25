"""Makes execution contexts, and caches the kernels that TensorRT-RTX compiles as they first run.

A plan of TensorRT-RTX is finished on the GPU it runs on: kernels are compiled when a context first has their
shapes. They are native code, so they are cached in the user's own folder, see :mod:`..bundle.user_cache`: one file for
each plan and GPU model, which begins with the SHA-256 of the rest. Deleting it costs only time.
"""

import hashlib
from pathlib import Path
from typing import Any

from ..bundle.user_cache import CacheUnusableError, cached_file, prune, read_cached, write_cached
from ..cuda.gpu import Gpu

__all__ = ["Contexts"]

_FILES, _TOTAL = 128, 2**30
"""Most files and bytes that are cached, of all plans."""
_DIGEST = hashlib.sha256().digest_size


class Contexts:
    """Makes the contexts of an open plan. The caller holds the device.

    Args:
        module: the library.
        engine: the deserialised plan.
        name: of the plan.
        sha256: of the plan.
        gpu: where it runs.

    Attributes:
        notes: what could not be loaded or cached, and why; the plan runs all the same.

    """

    def __init__(self, module: Any, engine: Any, gpu: Gpu, *, name: str, sha256: str) -> None:
        self.notes: list[str] = []
        self._engine = engine
        self._strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
        self._name = f"{name}.{gpu.generation}-{gpu.model}.{sha256[:32]}.kernels"
        self._config: Any = None
        self._cache: Any = None
        self._file: Path | None = None
        self._cached = b""
        if hasattr(getattr(module, "IRuntimeConfig", None), "create_runtime_cache"):
            self._configure(module)

    def _configure(self, module: Any) -> None:
        self._config = self._engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(self._strategy)
        # A captured launch keeps the kernels it was captured with. By default general kernels run while those for the
        # actual shapes are compiled in the background, so the general ones would be captured.
        strategies = module.DynamicShapesKernelSpecializationStrategy
        self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        self._cache = self._config.create_runtime_cache()
        data = self._read()
        if data is not None and not self._cache.deserialize(data):
            self.notes.append(f"{self._name} is of another driver or version; kernels are compiled again")
        elif data is not None:
            self._cached = data
        self._config.set_runtime_cache(self._cache)

    def _read(self) -> bytes | None:
        """Return the cached kernels, or None where there are none that can be trusted."""
        try:
            self._file = cached_file("kernels", self._name)
            content = read_cached(self._file)
        except CacheUnusableError as error:
            self.notes.append(f"kernels are compiled again: {error}")
            return None
        if content is None:
            return None
        digest, data = bytes(content[:_DIGEST]), bytes(content[_DIGEST:])
        if hashlib.sha256(data).digest() != digest:
            self.notes.append(f"{self._name} was changed; kernels are compiled again")
            return None
        return data

    def new(self) -> Any:
        """Return a context whose scratch memory the caller provides; None where the library cannot make one."""
        return self._engine.create_execution_context(self._strategy if self._config is None else self._config)

    def keep(self) -> None:
        """Cache the kernels that were compiled since, if any."""
        if self._cache is None or self._file is None:
            return
        data = bytes(memoryview(self._cache.serialize()))
        if data == self._cached:
            return
        try:
            write_cached(self._file, hashlib.sha256(data).digest() + data)
        except CacheUnusableError as error:
            self.notes.append(f"kernels are not cached: {error}")
        else:
            self._cached = data
            prune(self._file.parent, "*.kernels", files=_FILES, size=_TOTAL)
